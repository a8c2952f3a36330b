-- Times are microseconds since 1970 UTC. Booleans are 0 or 1.
CREATE TABLE images (
    pk               INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    name             TEXT,
    status           TEXT    NOT NULL,
    disk_format      TEXT,
    container_format TEXT,
    visibility       TEXT    NOT NULL,
    owner            TEXT    NOT NULL,
    protected        INTEGER NOT NULL,
    hidden           INTEGER NOT NULL,
    min_disk         INTEGER NOT NULL,
    min_ram          INTEGER NOT NULL,
    size             INTEGER,
    virtual_size     INTEGER,
    allocated        INTEGER,
    checksum         TEXT,
    hash_algo        TEXT,
    hash_value       TEXT,
    disk_error       TEXT    NOT NULL,
    created_at       INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    node             TEXT    NOT NULL,
    reserved         INTEGER NOT NULL
) STRICT;

-- The first index also holds what a default list filters by, so that a walk in
-- its order touches the table only for the rows of the page.
CREATE INDEX images_created ON images (created_at, id, status, visibility, owner, hidden);
CREATE INDEX images_updated ON images (updated_at, id);
CREATE INDEX images_name    ON images (name, created_at, id);
CREATE INDEX images_owner   ON images (owner, created_at, id);
CREATE INDEX images_status  ON images (status, created_at, id);
CREATE INDEX images_size    ON images (size, id);
CREATE INDEX images_checksum   ON images (checksum);
CREATE INDEX images_hash_value ON images (hash_value);

CREATE TABLE properties (
    image INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    name  TEXT    NOT NULL,
    value TEXT    NOT NULL,
    PRIMARY KEY (image, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX properties_value ON properties (name, value, image);

CREATE TABLE tags (
    image INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    tag   TEXT    NOT NULL,
    PRIMARY KEY (image, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX tags_tag ON tags (tag, image);

-- pending: a place where an upload under way is putting bytes.
CREATE TABLE locations (
    image    INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    pending  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    metadata TEXT    NOT NULL, -- a JSON object
    PRIMARY KEY (image, pending, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE changes (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;

CREATE TABLE quotas (
    project          TEXT PRIMARY KEY,
    image_count_total INTEGER NOT NULL,
    image_size_total  INTEGER NOT NULL -- MiB
) STRICT;

-- What each project has, kept by the triggers below so that a quota check costs
-- the same for one image and for a million.
CREATE TABLE usage (
    project     TEXT PRIMARY KEY,
    image_count INTEGER NOT NULL,
    image_bytes INTEGER NOT NULL
) STRICT;

CREATE TRIGGER usage_insert AFTER INSERT ON images WHEN new.status <> 'deleted' BEGIN
    INSERT INTO usage VALUES (new.owner, 1, coalesce(new.size, 0) + new.reserved)
    ON CONFLICT (project) DO UPDATE SET
        image_count = image_count + 1,
        image_bytes = image_bytes + excluded.image_bytes;
END;
CREATE TRIGGER usage_update AFTER UPDATE OF owner, status, size, reserved ON images BEGIN
    UPDATE usage SET
        image_count = image_count - 1,
        image_bytes = image_bytes - coalesce(old.size, 0) - old.reserved
    WHERE project = old.owner AND old.status <> 'deleted';
    INSERT INTO usage
    SELECT new.owner, 1, coalesce(new.size, 0) + new.reserved WHERE new.status <> 'deleted'
    ON CONFLICT (project) DO UPDATE SET
        image_count = image_count + 1,
        image_bytes = image_bytes + excluded.image_bytes;
END;
