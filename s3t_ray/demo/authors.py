"""Authors of modules in Python's standard library: the people in the demo's data set.

Each row lists a person and the modules whose source names that person as an author or maintainer
(a test looks the name up in the source of the running Python). Others may have edited a docstring
since; the demo still attributes it to that person. Only names are used, never email addresses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Author:
    """One person. `written` is the name as spelled in the sources, if the spelling differs."""

    name: str
    modules: tuple[str, ...]
    written: str | None = None

    @property
    def mark(self) -> str:
        """The text that identifies this person in the source of each of `modules`."""
        return self.written or self.name


AUTHORS: tuple[Author, ...] = (
    Author("Armin Ronacher", ("ast",)),
    Author("Barry Warsaw", ("email.message", "email.generator", "email.utils")),
    Author("Bastian Kleineidam", ("urllib.robotparser",)),
    Author("Ben Gertzfield", ("email.base64mime", "email.charset", "email.quoprimime")),
    Author("Bill Janssen", ("ssl",)),
    Author("Brian Quinlan", ("concurrent.futures._base", "xmlrpc.server")),
    Author("David Ascher", ("poplib",)),
    Author("Eric Price", ("_pydecimal",)),
    Author("Fredrik Lundh", ("xml.etree.ElementTree", "xmlrpc.client")),
    Author("Gerhard Haering", ("smtplib",)),
    Author("Guilherme Polo", ("tkinter.ttk",)),
    Author("Ka-Ping Yee", ("inspect", "tokenize")),
    Author("Lars Gustäbel", ("tarfile",), written="Lars Gustaebel"),
    Author("Luke Kenneth Casson Leighton", ("socketserver",)),
    Author("Marc-Andre Lemburg", ("codecs", "platform")),
    Author("Michael Foord", ("unittest.mock",)),
    Author("Nadeem Vawda", ("bz2",)),
    Author("Nick Coghlan", ("functools", "runpy")),
    Author("Peter Astrand", ("subprocess",)),
    Author("Piers Lauder", ("imaplib",)),
    Author("R Oudkerk", ("multiprocessing.pool", "multiprocessing.connection", "multiprocessing.process")),
    Author("Steven J. Bethard", ("argparse",)),
    Author("Tim Peters", ("doctest",)),
    Author("Vinay Sajip", ("logging", "logging.handlers")),
)
"""Alphabetical, so that the order involves no choice."""

HELD_OUT_MODULES: tuple[str, ...] = (
    "asyncio.queues",
    "bdb",
    "calendar",
    "cmd",
    "collections",
    "configparser",
    "gzip",
    "http.cookiejar",
    "http.server",
    "ipaddress",
    "queue",
    "shutil",
    "statistics",
    "tempfile",
    "threading",
    "urllib.request",
)
"""Modules by other authors: one record of each is held out for evaluation."""

PUBLIC_NAMES: dict[str, str] = {"_pydecimal": "decimal", "concurrent.futures._base": "concurrent.futures"}
"""The module that users import, where it differs from the one that holds the source."""
