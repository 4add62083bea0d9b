"""One file per table or pair of tables: the rows that the ledger's transactions read and write."""
