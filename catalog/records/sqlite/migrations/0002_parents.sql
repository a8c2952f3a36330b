-- parent_id: the image whose disk shows through where this one's has nothing, and
-- parent_hash what that image's bytes hashed to; both NULL where there is none.
-- snapshots: a JSON array of the disks kept inside the image.
ALTER TABLE images ADD COLUMN parent_id   TEXT;
ALTER TABLE images ADD COLUMN parent_hash TEXT;
ALTER TABLE images ADD COLUMN snapshots   TEXT NOT NULL DEFAULT '[]';

CREATE INDEX images_parent ON images (parent_id) WHERE parent_id IS NOT NULL;

-- Until now an image in one of these was read as if there were no container. They
-- are opened from here on, and what is not in one has no guest disk.
UPDATE images SET virtual_size = NULL, allocated = NULL,
    disk_error = 'it was uploaded before containers were opened: upload it again, in container bare if it is a plain disk image'
WHERE container_format IN ('ova', 'compressed') AND disk_error = '' AND status IN ('active', 'deactivated');
