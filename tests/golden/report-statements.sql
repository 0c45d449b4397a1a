-- cellsync: what a repair would write, as SQL for the mariadb client
-- run 20261123T030000-4f2a of topology api
-- started: 2026-11-23T03:00:00Z by root on ops1
-- command: cellsync repair --dry-run --reason '[red]x[/red] [/bold]\n\r\t\x1b[31m\u202e\u2028\x85\ud800'
-- It holds rows of the databases as they are, secrets too: keep it as you keep those.
-- What is run from here is not in cellsync's journal, so `cellsync undo` does not know it: keep this file.
-- Each database has its own section, for a server of its own. To run one of several:
--   sed -n '/^-- cellsync: begin CELL$/,/^-- cellsync: end CELL$/p' FILE | mariadb ... SCHEMA
-- or name the cell on the command line, or let cellsync write a file for each: -o 'FILE-{cell}.sql'

-- cellsync: begin c1
-- 9 changes to c1: schema nova, 10.11.6-MariaDB, server srv-1
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

-- 1: insert aggregates name=west (rule aggregates): aggregate west is missing in c1
INSERT INTO `aggregates` (`deleted`, `name`, `created_at`)
SELECT 0, 'west', UTC_TIMESTAMP()
FROM DUAL
WHERE NOT EXISTS (
    SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'west');
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 1));

-- 2: insert aggregate_metadata aggregate_id=west key=note (rule aggregate-metadata): west lacks its note [red]x[/red] [/bold]\n\r\t\x1b[31m\u202e\u2028\x85\ud800
INSERT INTO `aggregate_metadata` (`deleted`, `aggregate_id`, `key`, `value`, `weight`)
SELECT 0, r0.id, 'note', _utf8mb4 x'697427730A5C20F09F9880', 0.5e0
FROM (
    SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
    WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1) AS r0
WHERE NOT EXISTS (
    SELECT 1 FROM `aggregate_metadata` AS t JOIN `aggregates` AS t0 ON t0.`id` = t.`aggregate_id` AND t0.`deleted` = 0 WHERE t.`deleted` = 0 AND t0.`name` = 'west' AND t.`key` = 'note');
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 2));

-- 3: update aggregate_metadata aggregate_id=west key=ratio (rule aggregate-metadata): c1 sells 2.0 virtual CPUs for each real one on west
UPDATE `aggregate_metadata`
SET `value` = '4.0', `weight` = 1e+23, `updated_at` = `updated_at`
WHERE `id` = 7
  AND `aggregate_id` = (
    SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
    WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
  AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'ratio'
  AND CONVERT(`value` USING utf8mb4) COLLATE utf8mb4_nopad_bin = '2.0'
  AND CAST(`weight` AS DOUBLE) = 0.10000000149011612e0
  AND `deleted` = 0
  AND CAST(`updated_at` AS CHAR) COLLATE utf8mb4_nopad_bin = '2026-11-01 10:00:00.500'
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 3));

-- 4: update aggregate_metadata aggregate_id=west key=old (rule aggregate-metadata): api deleted it
UPDATE `aggregate_metadata`
SET `deleted` = 8, `deleted_at` = UTC_TIMESTAMP(), `updated_at` = `updated_at`
WHERE `id` = 8
  AND `aggregate_id` = (
    SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
    WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
  AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'old'
  AND `value` IS NULL
  AND `weight` IS NULL
  AND `deleted` = 0
  AND `deleted_at` IS NULL
  AND `updated_at` IS NULL
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 4));

SAVEPOINT cellsync_together;
SET @cellsync_before = @cellsync_made, @cellsync_open_before = @cellsync_open;

-- 5: update aggregates name=b (rule aggregates): parked for a moment, so that other rows can take its unique value
UPDATE `aggregates`
SET `name` = '~0f'
WHERE `id` = 1
  AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'a'
  AND `deleted` = 0
  AND NOT EXISTS (
    SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'b' AND NOT (t.`id` = 1))
  AND @cellsync_made = @cellsync_before + 0
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 5));

-- 6: update aggregates name=a (rule aggregates): was renamed
UPDATE `aggregates`
SET `name` = 'a'
WHERE `id` = 2
  AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'b'
  AND `deleted` = 0
  AND NOT EXISTS (
    SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'a' AND NOT (t.`id` = 2) AND NOT (t.`id` = 1))
  AND @cellsync_made = @cellsync_before + 1
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 6));

-- 7: update aggregates name=b (rule aggregates): was renamed
UPDATE `aggregates`
SET `name` = 'b'
WHERE `id` = 1
  AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = '~0f'
  AND `deleted` = 0
  AND NOT EXISTS (
    SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'b' AND NOT (t.`id` = 1) AND NOT (t.`id` = 2))
  AND @cellsync_made = @cellsync_before + 2
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 7));
DELIMITER //
BEGIN NOT ATOMIC
  IF @cellsync_made <> @cellsync_before + 3 THEN
    ROLLBACK TO SAVEPOINT cellsync_together;
    SET @cellsync_made = @cellsync_before, @cellsync_open = CONCAT_WS(',', @cellsync_open_before, '5,6,7');
  END IF;
END//
DELIMITER ;

-- 8: delete aggregates name=gone (rule aggregates): gone is only in c1
DELETE FROM `aggregates`
WHERE `id` = 9
  AND `deleted` = 0
  AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'gone'
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 8));

-- 9: delete aggregate_metadata aggregate_id=west key=gone (rule aggregate-metadata): only its compared columns are known
DELETE FROM `aggregate_metadata`
WHERE `id` = 9
  AND `aggregate_id` = (
    SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
    WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
  AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'gone'
  AND `deleted` = 0
LIMIT 1;
SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 9));

COMMIT;
SELECT 'c1' AS cell, 9 AS planned, @cellsync_made AS made,
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
-- undo: -- 9: undo of delete aggregate_metadata aggregate_id=west key=gone (rule aggregate-metadata): only its compared columns are known
-- undo: -- 9 has no statement: not all is known of what the row of aggregate_metadata was
-- undo: SET @cellsync_open = CONCAT_WS(',', @cellsync_open, 9);
-- undo: 
-- undo: -- 8: undo of delete aggregates name=gone (rule aggregates): gone is only in c1
-- undo: INSERT INTO `aggregates` (`id`, `deleted`, `name`)
-- undo: SELECT 9, 0, 'gone'
-- undo: FROM DUAL
-- undo: WHERE NOT EXISTS (
-- undo:     SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'gone' AND CONVERT(t.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'gone')
-- undo:   AND NOT EXISTS (SELECT 1 FROM `aggregates` AS t WHERE t.`id` = 9)
-- undo:   AND FIND_IN_SET(8, @cellsync_left) = 0;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 8));
-- undo: 
-- undo: SAVEPOINT cellsync_together;
-- undo: SET @cellsync_before = @cellsync_made, @cellsync_open_before = @cellsync_open;
-- undo: 
-- undo: -- 7: undo of update aggregates name=b (rule aggregates): was renamed
-- undo: UPDATE `aggregates`
-- undo: SET `name` = '~0f'
-- undo: WHERE `id` = 1
-- undo:   AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'b'
-- undo:   AND `deleted` = 0
-- undo:   AND NOT EXISTS (
-- undo:     SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = '~0f' AND NOT (t.`id` = 1))
-- undo:   AND FIND_IN_SET(7, @cellsync_left) = 0
-- undo:   AND @cellsync_made = @cellsync_before + 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 7));
-- undo: 
-- undo: -- 6: undo of update aggregates name=a (rule aggregates): was renamed
-- undo: UPDATE `aggregates`
-- undo: SET `name` = 'b'
-- undo: WHERE `id` = 2
-- undo:   AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'a'
-- undo:   AND `deleted` = 0
-- undo:   AND NOT EXISTS (
-- undo:     SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'b' AND NOT (t.`id` = 2) AND NOT (t.`id` = 1))
-- undo:   AND FIND_IN_SET(6, @cellsync_left) = 0
-- undo:   AND @cellsync_made = @cellsync_before + 1
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 6));
-- undo: 
-- undo: -- 5: undo of update aggregates name=b (rule aggregates): parked for a moment, so that other rows can take its unique value
-- undo: UPDATE `aggregates`
-- undo: SET `name` = 'a'
-- undo: WHERE `id` = 1
-- undo:   AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = '~0f'
-- undo:   AND `deleted` = 0
-- undo:   AND NOT EXISTS (
-- undo:     SELECT 1 FROM `aggregates` AS t WHERE t.`deleted` = 0 AND t.`name` = 'a' AND NOT (t.`id` = 1) AND NOT (t.`id` = 2))
-- undo:   AND FIND_IN_SET(5, @cellsync_left) = 0
-- undo:   AND @cellsync_made = @cellsync_before + 2
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 5));
-- undo: DELIMITER //
-- undo: BEGIN NOT ATOMIC
-- undo:   IF @cellsync_made <> @cellsync_before + 3 THEN
-- undo:     ROLLBACK TO SAVEPOINT cellsync_together;
-- undo:     SET @cellsync_made = @cellsync_before, @cellsync_open = CONCAT_WS(',', @cellsync_open_before, '7,6,5');
-- undo:   END IF;
-- undo: END//
-- undo: DELIMITER ;
-- undo: 
-- undo: -- 4: undo of update aggregate_metadata aggregate_id=west key=old (rule aggregate-metadata): api deleted it
-- undo: UPDATE `aggregate_metadata`
-- undo: SET `deleted` = 0, `deleted_at` = NULL, `updated_at` = `updated_at`
-- undo: WHERE `id` = 8
-- undo:   AND `aggregate_id` = (
-- undo:     SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
-- undo:     WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
-- undo:   AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'old'
-- undo:   AND `value` IS NULL
-- undo:   AND `weight` IS NULL
-- undo:   AND `deleted` = 8
-- undo:   AND `updated_at` IS NULL
-- undo:   AND FIND_IN_SET(4, @cellsync_left) = 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 4));
-- undo: 
-- undo: -- 3: undo of update aggregate_metadata aggregate_id=west key=ratio (rule aggregate-metadata): c1 sells 2.0 virtual CPUs for each real one on west
-- undo: UPDATE `aggregate_metadata`
-- undo: SET `value` = '2.0', `weight` = 0.10000000149011612e0, `updated_at` = `updated_at`
-- undo: WHERE `id` = 7
-- undo:   AND `aggregate_id` = (
-- undo:     SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
-- undo:     WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
-- undo:   AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'ratio'
-- undo:   AND CONVERT(`value` USING utf8mb4) COLLATE utf8mb4_nopad_bin = '4.0'
-- undo:   AND CAST(`weight` AS DOUBLE) = 1e+23
-- undo:   AND `deleted` = 0
-- undo:   AND CAST(`updated_at` AS CHAR) COLLATE utf8mb4_nopad_bin = '2026-11-01 10:00:00.500'
-- undo:   AND FIND_IN_SET(3, @cellsync_left) = 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 3));
-- undo: 
-- undo: -- 2: undo of insert aggregate_metadata aggregate_id=west key=note (rule aggregate-metadata): west lacks its note [red]x[/red] [/bold]\n\r\t\x1b[31m\u202e\u2028\x85\ud800
-- undo: DELETE FROM `aggregate_metadata`
-- undo: WHERE `deleted` = 0
-- undo:   AND `aggregate_id` = (
-- undo:     SELECT MIN(r.`id`) AS id FROM `aggregates` AS r
-- undo:     WHERE r.`deleted` = 0 AND r.`name` = 'west' AND CONVERT(r.`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west' HAVING COUNT(*) = 1)
-- undo:   AND `key` = 'note'
-- undo:   AND CONVERT(`key` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'note'
-- undo:   AND CONVERT(`value` USING utf8mb4) COLLATE utf8mb4_nopad_bin = _utf8mb4 x'697427730A5C20F09F9880'
-- undo:   AND CAST(`weight` AS DOUBLE) = 0.5e0
-- undo:   AND FIND_IN_SET(2, @cellsync_left) = 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 2));
-- undo: 
-- undo: -- 1: undo of insert aggregates name=west (rule aggregates): aggregate west is missing in c1
-- undo: DELETE FROM `aggregates`
-- undo: WHERE `deleted` = 0
-- undo:   AND `name` = 'west'
-- undo:   AND CONVERT(`name` USING utf8mb4) COLLATE utf8mb4_nopad_bin = 'west'
-- undo:   AND NOT EXISTS (SELECT 1 FROM `aggregate_hosts` AS f WHERE f.`aggregate_id` = `aggregates`.`id`)
-- undo:   AND FIND_IN_SET(1, @cellsync_left) = 0
-- undo: LIMIT 1;
-- undo: SET @cellsync_made = @cellsync_made + (ROW_COUNT() = 1), @cellsync_open = CONCAT_WS(',', @cellsync_open, IF(ROW_COUNT() = 1, NULL, 1));
-- undo: 
-- undo: COMMIT;
-- undo: SELECT 'c1' AS cell, 9 AS planned, @cellsync_made AS made,
-- undo:     TRIM(LEADING ',' FROM @cellsync_open) AS `not taken back`;
-- refused: quotas: 25 updates are more than 25% (10)
-- skipped: aggregates name='[red]x[/red] [/bold]\n\r\t\x1b[31m\u202e\u2028\x85\ud800': it does not fit
-- afterwards: restart nova-scheduler in c1: it caches aggregates
-- cellsync: end c1

-- cellsync: begin c2
-- no statements
-- error: could not be reached: 10.0.2.1:3306 did not answer within 5 s
-- cellsync: end c2
