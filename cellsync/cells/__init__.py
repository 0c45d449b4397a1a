"""Read cellsync.yaml: which cells there are, and how their databases and brokers are reached.

    cellsync.yaml -> yamlfile.Document -> shape (JSON Schema) -> references (${...}) -> topology

topology     the file as a whole, and its cells; every problem, once, with its place
shape        which keys there are, and of what kind their values
accepted     the differences that people live with
references   what stands for ${NAME} and ${file:PATH}
endpoints    URLs of databases and brokers: normal for drivers, with stars for people
optionfiles  nova.conf and client option files, where others keep such URLs
outline      the names in it alone, for completing words on the command line
files        text from a file, or why there is none
names        what a cell may be named
mappings     the cells that cell_mappings of nova_api lists

All problems of the file are collected and raised once, each with file:line:column. No message
repeats a value that may hold a password: URLs are shown with stars, and what could not be read
is not shown at all.
"""

from cellsync.cells.endpoints import broker_endpoint, endpoint
from cellsync.cells.mappings import children
from cellsync.cells.outline import Outline, outline
from cellsync.cells.topology import example, load

__all__ = ["Outline", "broker_endpoint", "children", "endpoint", "example", "load", "outline"]
