-- parent_id: the image whose disk shows through where this one's has nothing, and
-- parent_hash what that image's bytes hashed to; both NULL where there is none.
-- snapshots: a JSON array of the disks kept inside the image.
ALTER TABLE images ADD COLUMN parent_id   TEXT;
ALTER TABLE images ADD COLUMN parent_hash TEXT;
ALTER TABLE images ADD COLUMN snapshots   TEXT NOT NULL DEFAULT '[]';

CREATE INDEX images_parent ON images (parent_id) WHERE parent_id IS NOT NULL;
