"""The data: a table like Nova's ``instances``, and the ways in which a copy of it is out of step."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = "bench"

TABLE = """
CREATE TABLE instances (
    created_at datetime, updated_at datetime, deleted_at datetime, id int PRIMARY KEY AUTO_INCREMENT,
    internal_id int, user_id varchar(255), project_id varchar(255), image_ref varchar(255),
    kernel_id varchar(255), ramdisk_id varchar(255), launch_index int, key_name varchar(255),
    key_data mediumtext, power_state int, vm_state varchar(255), memory_mb int, vcpus int,
    hostname varchar(255), host varchar(255), user_data mediumtext, display_name varchar(255),
    display_description varchar(255), uuid varchar(36) NOT NULL, launched_at datetime, disabled tinyint,
    UNIQUE KEY (uuid)
) CHARACTER SET utf8mb3"""

_UUID = "INSERT(INSERT(INSERT(INSERT(MD5({0}), 9, 0, '-'), 14, 0, '-'), 19, 0, '-'), 24, 0, '-')"
FILL = f"""
INSERT INTO instances
SELECT '2015-01-01' + INTERVAL seq SECOND, '2015-02-01' + INTERVAL seq SECOND, NULL, seq, NULL,
       MD5(seq % 100), MD5(seq % 50), {_UUID.format("seq % 1000")}, '', '', 0, CONCAT('key', seq % 1000),
       IF(seq % 10 = 0, REPEAT('AAAAB3Nza', 20), NULL), 1, 'active', 2048, 2, CONCAT('host-', seq),
       CONCAT('compute-', seq % 500), NULL, CONCAT('vm-', seq), CONCAT('description of ', seq),
       {_UUID.format("seq")}, '2015-01-01' + INTERVAL seq SECOND, 0
FROM seq_1_to_{{rows}}"""


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How a child is out of step: of every ``step`` rows one is missing, one changed and one extra."""

    name: str
    step: int
    """0: in step."""
    first: int = 0
    """Rows before this one are in step."""
    last: int | None = None

    def counts(self, rows: int) -> tuple[int, int, int]:
        """Return how many rows are missing, changed and extra."""
        if not self.step:
            return 0, 0, 0
        span = range(self.first + 1, min(rows, self.last or rows) + 1)
        gone = sum(1 for number in span if number % self.step == 1)
        return gone, sum(1 for number in span if number % self.step == 2 % self.step), gone

    def statements(self) -> list[str]:
        """Return what puts a copy out of step."""
        if not self.step:
            return []
        span = f"id > {self.first} AND id <= {self.last or 2**31 - 1}"
        names = (
            "created_at, updated_at, internal_id, user_id, project_id, image_ref, vm_state, memory_mb, "
            "vcpus, hostname, host, launched_at, disabled"
        )
        return [
            f"CREATE TEMPORARY TABLE more AS SELECT * FROM instances WHERE id % {self.step} = 1 AND {span}",
            f"DELETE FROM instances WHERE id % {self.step} = 1 AND {span}",
            f"UPDATE instances SET vcpus = 9 WHERE id % {self.step} = 2 % {self.step} AND {span}",
            f"INSERT INTO instances (id, uuid, display_name, {names}) "
            f"SELECT id + 1000000000, CONCAT('x', SUBSTR(uuid, 2)), CONCAT('x', display_name), {names} "
            f"FROM more",
        ]


def drifts(rows: int) -> list[Drift]:
    """Return the drifts that are measured."""
    few = max(3, rows // 33)
    return [
        Drift(name="in-step", step=0),
        Drift(name="100-scattered", step=few),
        Drift(name="100-clustered", step=3, first=rows // 2, last=rows // 2 + 99),
        Drift(name="1%", step=300),
        Drift(name="10%", step=30),
    ]


KEYS = {
    # The ids of the parent and the child are the same, and are the key.
    "int": "{table: instances, key: [id], surrogate: {id: preserve}, columns: {exclude: [updated_at]}}",
    # The ids mean nothing; in the child they are others.
    "uuid": "{table: instances, key: [uuid], columns: {exclude: [updated_at]}}",
}
_INT = KEYS["int"]
KEYS |= {
    "text": "{table: instances, key: [display_name], columns: {exclude: [updated_at]}}",
    "wide": _INT,
}
EVERY_DRIFT = ("int", "uuid")
"""The keys that are measured with every drift; the others in step and with 100 differences."""

VARIANTS = {
    "text": ["ALTER TABLE instances ADD UNIQUE KEY (display_name)"],
    "wide": [
        "ALTER TABLE instances "
        + ", ".join(f"ADD COLUMN more_{n} varchar(200) DEFAULT '{'wide ' * 16}'" for n in range(25))
    ],
}
"""What is done to the table on both sides; wide rows have 50 columns and 2 KB more."""

MOVED = "UPDATE instances SET id = id + 100000000 ORDER BY id DESC"

NARROW = """
CREATE TABLE things (
    id int PRIMARY KEY, name varchar(20) NOT NULL, size int, note varchar(40)
) CHARACTER SET utf8mb3"""
NARROW_FILL = """
INSERT INTO things SELECT seq, CONCAT('name ', seq), seq % 1000, 'a note of some length'
FROM seq_1_to_{rows}"""
NARROW_DRIFT = (
    "DELETE FROM things WHERE id % 30 = 1",
    "UPDATE things SET size = -1 WHERE id % 30 = 2",
    "INSERT INTO things SELECT seq + 1000000000, CONCAT('x', seq), 1, 'extra' FROM seq_1_to_333333",
)

SMALL = (
    "CREATE TABLE aggregates (id int PRIMARY KEY AUTO_INCREMENT, name varchar(255) UNIQUE, zone varchar(99))",
    "CREATE TABLE flavors (id int PRIMARY KEY AUTO_INCREMENT, name varchar(255) UNIQUE, vcpus int)",
    "CREATE TABLE specs (id int PRIMARY KEY AUTO_INCREMENT, flavor_id int, name varchar(9), v varchar(9))",
    "INSERT INTO aggregates SELECT seq, CONCAT('aggregate ', seq), 'az' FROM seq_1_to_30",
    "INSERT INTO flavors SELECT seq, CONCAT('flavor ', seq), seq FROM seq_1_to_60",
    "INSERT INTO specs SELECT seq, 1 + seq % 60, CONCAT('s', seq), 'value' FROM seq_1_to_120",
)
SMALL_RULES = """\
  - {table: aggregates, key: [name]}
  - {table: flavors, key: [name]}
  - {table: specs, key: [flavor_id, name], references: {flavor_id: flavors}}
"""
