"""Claims on requests, so that of several processes with the same request only one sends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pmlm_env.llm.storage.location import Storage

_ROWS_PER_QUERY = 400  # of two values each; older versions of SQLite allow 999


class Claims:
    """A table of keys and of the processes that claimed them; claims of dead processes do not count.

    Args:
        storage: The database; with a file or a server, because nobody shares a database in memory.
    """

    def __init__(self, storage: Storage) -> None:
        """Store the database; nothing is opened yet."""
        self._storage = storage

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim the keys that no other living process has claimed, and return those that this process has now.

        Raises:
            DatabaseError: The database cannot be written.
        """
        wanted = sorted(keys)  # in this order in every process: PostgreSQL locks rows one by one
        taken: set[str] = set()
        with self._storage.transaction() as statements:
            own = self._storage.claimant()
            for (other,) in statements.execute("SELECT DISTINCT claimant FROM claims").fetchall():
                if other != own and not self._storage.is_alive(other):
                    statements.execute("DELETE FROM claims WHERE claimant = ?", (other,))
            for start in range(0, len(wanted), _ROWS_PER_QUERY):
                chunk = wanted[start : start + _ROWS_PER_QUERY]
                rows = [value for key in chunk for value in (key, own)]
                places = ",".join(["(?,?)"] * len(chunk))
                statements.execute(f"INSERT INTO claims VALUES {places} ON CONFLICT DO NOTHING", rows)
                places = ",".join("?" * len(chunk))
                query = f"SELECT key FROM claims WHERE key IN ({places}) AND claimant = ?"
                taken.update(key for (key,) in statements.execute(query, [*chunk, own]).fetchall())
        return taken

    def release(self, keys: Iterable[str]) -> None:
        """Give up this process's claims on some keys.

        Raises:
            DatabaseError: The database cannot be written; the claims end with the process.
        """
        held: Sequence[str] = sorted(keys)
        with self._storage.transaction() as statements:
            own = self._storage.claimant()
            for start in range(0, len(held), _ROWS_PER_QUERY):
                chunk = held[start : start + _ROWS_PER_QUERY]
                places = ",".join("?" * len(chunk))
                statements.execute(f"DELETE FROM claims WHERE key IN ({places}) AND claimant = ?", [*chunk, own])
