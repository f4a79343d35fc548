-- What a small database does in memory: fill, index, group, join, sort, update, delete.
CREATE TABLE items(id INTEGER PRIMARY KEY, place INT, name TEXT, weight REAL);
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000)
  INSERT INTO items SELECT n, (n * 7919) % 10007, 'item ' || n || hex(n * 31), n * 0.37 FROM numbers;
CREATE INDEX by_place ON items(place);
CREATE TABLE places AS SELECT place, count(*) AS items, group_concat(name) AS names FROM items GROUP BY place;
SELECT count(*), sum(items) FROM places JOIN items USING (place) WHERE weight > 40000 AND length(names) > 10;
SELECT name FROM items ORDER BY name DESC LIMIT 3;
UPDATE items SET name = name || ' again' WHERE place % 3 = 0;
DELETE FROM items WHERE place % 5 = 0;
