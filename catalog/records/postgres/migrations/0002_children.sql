-- What stands on an image is read by id, some at a time, without sorting it each time.
DROP INDEX images_parent;
CREATE INDEX images_parent ON images (parent_id, id) WHERE parent_id IS NOT NULL;
