-- Times are microseconds since 1970 UTC. Texts sort by their bytes, as everywhere.
CREATE TABLE images (
    pk               BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id               TEXT COLLATE "C" NOT NULL UNIQUE,
    name             TEXT COLLATE "C",
    status           TEXT COLLATE "C" NOT NULL,
    disk_format      TEXT COLLATE "C",
    container_format TEXT COLLATE "C",
    visibility       TEXT COLLATE "C" NOT NULL,
    owner            TEXT COLLATE "C" NOT NULL,
    protected        BOOLEAN NOT NULL,
    hidden           BOOLEAN NOT NULL,
    min_disk         BIGINT  NOT NULL,
    min_ram          BIGINT  NOT NULL,
    size             BIGINT,
    virtual_size     BIGINT,
    allocated        BIGINT,
    checksum         TEXT COLLATE "C",
    hash_algo        TEXT COLLATE "C",
    hash_value       TEXT COLLATE "C",
    disk_error       TEXT    NOT NULL,
    created_at       BIGINT  NOT NULL,
    updated_at       BIGINT  NOT NULL,
    node             TEXT    NOT NULL,
    reserved         BIGINT  NOT NULL,
    parent_id        TEXT COLLATE "C",
    parent_hash      TEXT COLLATE "C",
    snapshots        TEXT    NOT NULL -- a JSON array
);

-- Where a column may be NULL, an index has it before everything, as lists do.
CREATE INDEX images_created ON images (created_at, id);
CREATE INDEX images_updated ON images (updated_at, id);
CREATE INDEX images_name    ON images (name NULLS FIRST, created_at, id);
CREATE INDEX images_owner   ON images (owner, created_at, id);
CREATE INDEX images_status  ON images (status, created_at, id);
CREATE INDEX images_size    ON images (size NULLS FIRST, id);
CREATE INDEX images_checksum   ON images (checksum);
CREATE INDEX images_hash_value ON images (hash_value);
CREATE INDEX images_parent     ON images (parent_id) WHERE parent_id IS NOT NULL;

CREATE TABLE properties (
    image BIGINT NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    name  TEXT COLLATE "C" NOT NULL,
    value TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image, name)
);
-- A value may be longer than an index takes.
CREATE INDEX properties_value ON properties (name, md5(value), image);

CREATE TABLE tags (
    image BIGINT NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    tag   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (image, tag)
);
CREATE INDEX tags_tag ON tags (tag, image);

CREATE TABLE locations (
    image    BIGINT  NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    size     BIGINT  NOT NULL,
    version  TEXT    NOT NULL,
    metadata TEXT    NOT NULL, -- a JSON object
    PRIMARY KEY (image, position)
);
CREATE INDEX locations_store ON locations (store);

CREATE TABLE claims (
    image    BIGINT  NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    claim    TEXT    NOT NULL,
    PRIMARY KEY (image, position)
);

-- last: the number of the newest change. Its row is locked from the moment a
-- transaction takes the next one until that is committed, so changes become visible
-- in the order of their numbers, and there are no gaps.
CREATE TABLE change_counter (
    only_row BOOLEAN PRIMARY KEY DEFAULT true CHECK (only_row),
    last     BIGINT NOT NULL
);
INSERT INTO change_counter (last) VALUES (0);
CREATE TABLE changes (
    seq    BIGINT PRIMARY KEY,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    status TEXT NOT NULL
);

CREATE TABLE quotas (
    project           TEXT COLLATE "C" PRIMARY KEY,
    image_count_total BIGINT NOT NULL,
    image_size_total  BIGINT NOT NULL -- MiB
);

-- What each project has; kept by catalog/rules.
CREATE TABLE usage (
    project     TEXT COLLATE "C" PRIMARY KEY,
    image_count BIGINT NOT NULL,
    image_bytes BIGINT NOT NULL
);

-- until: by this database's clock.
CREATE TABLE leases (
    kind   TEXT   NOT NULL,
    id     TEXT   NOT NULL,
    node   TEXT   NOT NULL,
    holder TEXT   NOT NULL UNIQUE,
    until  BIGINT NOT NULL,
    PRIMARY KEY (kind, id)
);
