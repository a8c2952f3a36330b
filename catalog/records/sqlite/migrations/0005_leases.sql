-- Which node is at work on what; until: by this database's clock.
CREATE TABLE leases (
    kind   TEXT    NOT NULL,
    id     TEXT    NOT NULL,
    node   TEXT    NOT NULL,
    holder TEXT    NOT NULL UNIQUE,
    until  INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
