-- The sums of a project are kept by catalog/rules, for every database.
DROP TRIGGER usage_insert;
DROP TRIGGER usage_update;
