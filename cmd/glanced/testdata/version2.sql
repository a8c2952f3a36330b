-- The catalog of a data folder of database version 2, as the daemon before version 3
-- wrote it, with %DIR% for the folder: two active images, one that was deleted whose
-- data could not be, one whose upload was refused whose data could not be removed,
-- and two whose uploads were cut off: in the body, and when all of it was stored.
BEGIN TRANSACTION;
CREATE TABLE changes (
    seq    INTEGER PRIMARY KEY AUTOINCREMENT,
    kind   TEXT NOT NULL,
    id     TEXT NOT NULL,
    status TEXT NOT NULL
) STRICT;
INSERT INTO "changes" VALUES(1,'created','00000001-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(2,'updated','00000001-2222-4222-8222-222222222222','saving');
INSERT INTO "changes" VALUES(3,'updated','00000001-2222-4222-8222-222222222222','active');
INSERT INTO "changes" VALUES(4,'created','00000002-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(5,'updated','00000002-2222-4222-8222-222222222222','saving');
INSERT INTO "changes" VALUES(6,'updated','00000002-2222-4222-8222-222222222222','active');
INSERT INTO "changes" VALUES(7,'created','00000003-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(8,'updated','00000003-2222-4222-8222-222222222222','saving');
INSERT INTO "changes" VALUES(9,'updated','00000003-2222-4222-8222-222222222222','active');
INSERT INTO "changes" VALUES(10,'deleted','00000003-2222-4222-8222-222222222222','deleted');
INSERT INTO "changes" VALUES(11,'created','00000004-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(12,'updated','00000004-2222-4222-8222-222222222222','saving');
INSERT INTO "changes" VALUES(13,'updated','00000004-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(14,'created','00000005-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(15,'updated','00000005-2222-4222-8222-222222222222','saving');
INSERT INTO "changes" VALUES(16,'created','00000006-2222-4222-8222-222222222222','queued');
INSERT INTO "changes" VALUES(17,'updated','00000006-2222-4222-8222-222222222222','saving');
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
, parent_id   TEXT, parent_hash TEXT, snapshots   TEXT NOT NULL DEFAULT '[]') STRICT;
INSERT INTO "images" VALUES(1,'00000001-2222-4222-8222-222222222222','first','active','raw','bare','public','admin',0,0,0,0,7200,7200,7200,'53e6092addbe4bfc54238aaf41de37a2','sha512','1d3894967a1ff111163a6e1ccbadfefd4e3e08afc8919bff87c8921a434c8c4f459488e1b793dfd3a56194557e72d6ca80b754539773ab7c4b790e7ea2ef4ec1','',1795291592928827,1795291592931504,'',0,NULL,NULL,'[]');
INSERT INTO "images" VALUES(2,'00000002-2222-4222-8222-222222222222','second','active','raw','bare','public','admin',0,0,0,0,7500,7500,7500,'3484b97c8156762cfc651a8bf2ff1a2e','sha512','5ba765f8edca15444ab47e13ecd88f6eb2e8028168cce2586e7211ddefbe9a45a8fe035dd33e14f42820e9a9fe42da6a587357ce2c291927d95eb57647adaf41','',1795291592931964,1795291592934319,'',0,NULL,NULL,'[]');
INSERT INTO "images" VALUES(3,'00000003-2222-4222-8222-222222222222','deleted','deleted','raw','bare','public','admin',0,0,0,0,7800,7800,7800,'47ad11be7ec496569f0d944873ef0066','sha512','75944dfa4c7f93517c284fe2e77ae04bbdf92797e8b9e606ed9cc741d1a53626aa6ebae2292d851d0860869b80e5a0627b6cf6d493e4600fbcd5b5eced73f85f','',1795291592934865,1795291592940815,'',0,NULL,NULL,'[]');
INSERT INTO "images" VALUES(4,'00000004-2222-4222-8222-222222222222','refused','queued','qcow2','bare','public','admin',0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'',1795291592941155,1795291592943627,'5c9a3f0e-7d1b-4c38-9d55-0f6f3a1c2b77',0,NULL,NULL,'[]');
INSERT INTO "images" VALUES(5,'00000005-2222-4222-8222-222222222222','begun','saving','raw','bare','public','admin',0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'',1795291592943985,1795291592944617,'5c9a3f0e-7d1b-4c38-9d55-0f6f3a1c2b77',0,NULL,NULL,'[]');
INSERT INTO "images" VALUES(6,'00000006-2222-4222-8222-222222222222','stored','saving','raw','bare','public','admin',0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,'',1795291592945712,1795291592946390,'5c9a3f0e-7d1b-4c38-9d55-0f6f3a1c2b77',8388608,NULL,NULL,'[]');
CREATE TABLE locations (
    image    INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    pending  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    store    TEXT    NOT NULL,
    url      TEXT    NOT NULL,
    metadata TEXT    NOT NULL, -- a JSON object
    PRIMARY KEY (image, pending, position)
) STRICT, WITHOUT ROWID;
INSERT INTO "locations" VALUES(1,0,0,'local','file://%DIR%/images/00000001-2222-4222-8222-222222222222','{}');
INSERT INTO "locations" VALUES(2,0,0,'local','file://%DIR%/images/00000002-2222-4222-8222-222222222222','{}');
INSERT INTO "locations" VALUES(3,0,0,'local','file://%DIR%/images/00000003-2222-4222-8222-222222222222','{}');
INSERT INTO "locations" VALUES(4,1,0,'local','file://%DIR%/images/00000004-2222-4222-8222-222222222222','{}');
INSERT INTO "locations" VALUES(5,1,0,'local','file://%DIR%/images/00000005-2222-4222-8222-222222222222','{}');
INSERT INTO "locations" VALUES(6,1,0,'local','file://%DIR%/images/00000006-2222-4222-8222-222222222222','{}');
CREATE TABLE properties (
    image INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    name  TEXT    NOT NULL,
    value TEXT    NOT NULL,
    PRIMARY KEY (image, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE quotas (
    project          TEXT PRIMARY KEY,
    image_count_total INTEGER NOT NULL,
    image_size_total  INTEGER NOT NULL -- MiB
) STRICT;
CREATE TABLE schema_version (
		version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at INTEGER NOT NULL) STRICT;
INSERT INTO "schema_version" VALUES(1,'0001_images.sql',1795291592926378);
INSERT INTO "schema_version" VALUES(2,'0002_parents.sql',1795291592927689);
CREATE TABLE tags (
    image INTEGER NOT NULL REFERENCES images (pk) ON DELETE CASCADE,
    tag   TEXT    NOT NULL,
    PRIMARY KEY (image, tag)
) STRICT, WITHOUT ROWID;
CREATE TABLE usage (
    project     TEXT PRIMARY KEY,
    image_count INTEGER NOT NULL,
    image_bytes INTEGER NOT NULL
) STRICT;
INSERT INTO "usage" VALUES('admin',5,8403308);
CREATE INDEX images_created ON images (created_at, id, status, visibility, owner, hidden);
CREATE INDEX images_updated ON images (updated_at, id);
CREATE INDEX images_name    ON images (name, created_at, id);
CREATE INDEX images_owner   ON images (owner, created_at, id);
CREATE INDEX images_status  ON images (status, created_at, id);
CREATE INDEX images_size    ON images (size, id);
CREATE INDEX images_checksum   ON images (checksum);
CREATE INDEX images_hash_value ON images (hash_value);
CREATE INDEX properties_value ON properties (name, value, image);
CREATE INDEX tags_tag ON tags (tag, image);
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
CREATE INDEX images_parent ON images (parent_id) WHERE parent_id IS NOT NULL;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('changes',17);
COMMIT;
