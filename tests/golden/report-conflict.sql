-- cellsync: what repair wrote, as SQL for the mariadb client
-- run 20261123T030000-4f2a of topology api
-- started: 2026-11-23T03:00:00Z by root on ops1
-- command: cellsync repair
-- It holds rows of the databases as they are, secrets too: keep it as you keep those.
-- It is in the journal too: `cellsync undo` takes it back, and knows what has moved since.
-- Each database has its own section, for a server of its own. To run one of several:
--   sed -n '/^-- cellsync: begin CELL$/,/^-- cellsync: end CELL$/p' FILE | mariadb ... SCHEMA
-- or name the cell on the command line, or let cellsync write a file for each: -o 'FILE-{cell}.sql'

-- cellsync: begin c1
-- no statements
-- problem: aggregate-metadata aggregate_id=west key=ratio: conflict: value was 2.0 and is 3.0
-- problem: aggregate-metadata aggregate_id=west key=note: failed: Data too long for column 'value'
-- cellsync: end c1

-- cellsync: begin c2
-- no statements
-- cellsync: end c2
