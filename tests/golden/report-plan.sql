-- cellsync: what a repair would write, as SQL for the mariadb client
-- run 20261123T030000-4f2a of topology api
-- started: 2026-11-23T03:00:00Z by root on ops1
-- command: cellsync plan --dry-run
-- It holds rows of the databases as they are, secrets too: keep it as you keep those.
-- What is run from here is not in cellsync's journal, so `cellsync undo` does not know it: keep this file.
-- Each database has its own section, for a server of its own. To run one of several:
--   sed -n '/^-- cellsync: begin CELL$/,/^-- cellsync: end CELL$/p' FILE | mariadb ... SCHEMA
-- or name the cell on the command line, or let cellsync write a file for each: -o 'FILE-{cell}.sql'

-- cellsync: begin c1
-- 3 changes to c1: schema nova, 10.11.6-MariaDB, server srv-1
-- run it:       mariadb --host=... nova < FILE
-- on a copy:    the same with --init-command='SET @cellsync_copy = 1'
-- It refuses any other database. An error ends it, and then nothing of this section is written.
-- Rows that are no longer as planned are left alone; it ends with the numbers of those changes.
-- take it back: sed -n 's/^-- undo: //p' FILE | mariadb --host=... nova
-- and where some were not made: --init-command="SET @cellsync_left = '17,20'"
SET NAMES utf8mb4;
SET SESSION time_zone = '+00:00', SESSION foreign_key_checks = 1, SESSION unique_checks = 1,
    SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';
SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
DELIMITER //
BEGIN NOT ATOMIC
  IF @cellsync_copy IS NULL AND NOT (DATABASE() <=> 'nova'
    AND (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'SERVER_UID') <=> 'srv-1') THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not the database of the plan: nothing is written';
  END IF;
END//
DELIMITER ;
SET @cellsync_made = 0, @cellsync_open = '', @cellsync_left = IFNULL(@cellsync_left, '');
START TRANSACTION;

-- 1: insert aggregates name=east (rule aggregates):
INSERT INTO `aggregates` (`name`, `created_at`)
SELECT 'east', UTC_TIMESTAMP()
FROM DUAL
WHERE NOT EXISTS (
    SELECT 1 FROM `aggregates` AS t WHERE t.`name` = 'east');
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 1));

-- 2: update aggregate_metadata aggregate_id=west key=cpu_allocation_ratio (rule aggregate-metadata):
-- 2 has no statement: how aggregate-metadata refers to aggregates is not known
SET @cellsync_open = CONCAT_WS(',', @cellsync_open, 2);

-- 3: update aggregates name=old (rule aggregates):
UPDATE `aggregates`
SET `value` = 5
WHERE `id` = 5
  AND CONVERT(`value` USING utf8mb4) COLLATE utf8mb4_nopad_bin = '2.0'
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 3));

COMMIT;
SELECT 'c1' AS cell, 3 AS planned, @cellsync_made AS made,
    TRIM(LEADING ',' FROM @cellsync_open) AS `not made`;
-- The way back, the last change first:
-- undo: SET NAMES utf8mb4;
-- undo: SET SESSION time_zone = '+00:00', SESSION foreign_key_checks = 1, SESSION unique_checks = 1,
-- undo:     SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES';
-- undo: SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
-- undo: DELIMITER //
-- undo: BEGIN NOT ATOMIC
-- undo:   IF @cellsync_copy IS NULL AND NOT (DATABASE() <=> 'nova'
-- undo:     AND (SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_VARIABLES WHERE VARIABLE_NAME = 'SERVER_UID') <=> 'srv-1') THEN
-- undo:     SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not the database of the plan: nothing is written';
-- undo:   END IF;
-- undo: END//
-- undo: DELIMITER ;
-- undo: SET @cellsync_made = 0, @cellsync_open = '', @cellsync_left = IFNULL(@cellsync_left, '');
-- undo: START TRANSACTION;
-- undo: 
-- undo: -- 3: undo of update aggregates name=old (rule aggregates):
-- undo: -- 3 has no statement: not all is known of what the row of aggregates was
-- undo: SET @cellsync_open = CONCAT_WS(',', @cellsync_open, 3);
-- undo: 
-- undo: -- 2: undo of update aggregate_metadata aggregate_id=west key=cpu_allocation_ratio (rule aggregate-metadata):
-- undo: -- 2 has no statement: not all is known of what the row of aggregate_metadata was
-- undo: SET @cellsync_open = CONCAT_WS(',', @cellsync_open, 2);
-- undo: 
-- undo: -- 1: undo of insert aggregates name=east (rule aggregates):
-- undo: DELETE FROM `aggregates`
-- undo: WHERE `name` = 'east'
-- undo:   AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'east'
-- undo:   AND FIND_IN_SET(1, @cellsync_left) = 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 1));
-- undo: 
-- undo: COMMIT;
-- undo: SELECT 'c1' AS cell, 3 AS planned, @cellsync_made AS made,
-- undo:     TRIM(LEADING ',' FROM @cellsync_open) AS `not taken back`;
-- skipped: aggregates name='x\ny': name is longer than the column of c1
-- afterwards: restart nova-scheduler in c1: it caches aggregates
-- cellsync: end c1

-- cellsync: begin c2
-- no statements
-- cellsync: end c2
