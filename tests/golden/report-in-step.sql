-- cellsync: what a repair would write, as SQL for the mariadb client
-- run 20261123T030000-4f2a of topology api
-- started: 2026-11-23T03:00:00Z by root on ops1
-- command: cellsync diff
-- It holds rows of the databases as they are, secrets too: keep it as you keep those.
-- What is run from here is not in cellsync's journal, so `cellsync undo` does not know it: keep this file.
-- Each database has its own section, for a server of its own. To run one of several:
--   sed -n '/^-- cellsync: begin CELL$/,/^-- cellsync: end CELL$/p' FILE | mariadb ... SCHEMA
-- or name the cell on the command line, or let cellsync write a file for each: -o 'FILE-{cell}.sql'

-- cellsync: begin c1
-- no statements
-- cellsync: end c1

-- cellsync: begin c2
-- no statements
-- cellsync: end c2

-- cellsync: begin c3
-- no statements
-- cellsync: end c3
