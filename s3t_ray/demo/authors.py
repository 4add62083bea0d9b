"""Who wrote what in Python's standard library: the people of the demo's data set.

Each row names a person and modules whose source text names that person as an author or maintainer
(a test looks the name up in the source of the Python that runs it). A docstring in such a module
may have been edited by others since; for the demo, it is that person's. Names only: no mail
address is ever read from the sources.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Author:
    """One person. `written` is the name as it stands in the sources, where they spell it otherwise."""

    name: str
    modules: tuple[str, ...]
    written: str | None = None

    @property
    def mark(self) -> str:
        """The text that names this person in the source of each of `modules`."""
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
"""Alphabetical, so that the data set does not depend on anyone's taste."""

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
"""Modules by other authors: one record of each measures the models and trains none."""

PUBLIC_NAMES: dict[str, str] = {"_pydecimal": "decimal", "concurrent.futures._base": "concurrent.futures"}
"""What users import, where it differs from the module that holds the source."""
