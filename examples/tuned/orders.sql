-- A database in memory: orders of customers, indexed, summed up, changed. The number of rows is the argument.
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INT, note TEXT, amount REAL);
WITH RECURSIVE row(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM row WHERE n < :rows)
  INSERT INTO orders SELECT n, (n * 7919) % 10007, 'order ' || n || hex(n * 31), n * 0.37 FROM row;
CREATE INDEX by_customer ON orders(customer);
CREATE TABLE totals AS SELECT customer, count(*) AS orders, group_concat(note) AS notes FROM orders GROUP BY customer;
SELECT count(*), sum(orders) FROM totals;
UPDATE orders SET note = note || ' (paid)' WHERE customer % 3 = 0;
DELETE FROM orders WHERE customer % 5 = 0;
SELECT count(*) FROM orders WHERE note LIKE '%paid%';
