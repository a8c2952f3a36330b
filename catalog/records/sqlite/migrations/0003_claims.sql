-- size, bytes, and version: which state of the bytes; -1 and '' where they are not
-- recorded, as they were not until now. claims: what uploads that are under way, or
-- were cut off, may have left in a store. Until now that was a location with
-- pending = 1, whose URL the file store still takes for a claim.
CREATE TABLE claims (
    image    INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    claim    TEXT    NOT NULL,
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
INSERT INTO claims SELECT image, position, store, url FROM locations WHERE pending = 1;

ALTER TABLE locations RENAME TO old_locations;
CREATE TABLE locations (
    image    INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    version  TEXT    NOT NULL,
    metadata TEXT    NOT NULL, -- a JSON object
    PRIMARY KEY (image, position)
) STRICT, WITHOUT ROWID;
INSERT INTO locations SELECT image, position, store, url, -1, '', metadata FROM old_locations WHERE pending = 0;
DROP TABLE old_locations;

CREATE INDEX locations_store ON locations (store);
