-- feeds of some columns: only these are shown, need SELECT, and make an UPDATE a change;
-- large, generated, identity and dropped columns

\set VERBOSITY terse
\set SHOW_CONTEXT never

CREATE TABLE book (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, secret text, title text, gone int, author text,
	label text GENERATED ALWAYS AS (title || ' by ' || author) STORED, "It's odd" int DEFAULT 1);
ALTER TABLE book DROP gone;
INSERT INTO book (secret, title, author) VALUES ('s', 'One', 'A'), ('s', 'Two', 'B');
SELECT poll.track('book'), poll.track('book', 'few', columns => '{author,title,id}'),
	   poll.track('book', 'keyless', columns => '{label,"It''s odd"}'),
	   poll.track('book', 'by_author', columns => '{title}', scope => '{author}');
SELECT feed, columns, scope, key FROM poll.feeds ORDER BY feed;

-- what they show: the columns in their order; the key is there, shown or not
SELECT key, data FROM poll.changes('few');
SELECT key, data FROM poll.changes('keyless');
SELECT key, data FROM poll.changes('by_author', scope => '{"author": "A"}');
SELECT key, data FROM poll.changes('book');
SELECT * FROM poll.rows(NULL::book, feed => 'few');
SELECT * FROM poll.rows(NULL::book, feed => 'keyless');

-- what is a change to them
SELECT poll.current_cursor('{book}') AS b, poll.current_cursor('{few}') AS f, poll.current_cursor('{keyless}') AS k,
	   poll.current_cursor('{by_author}', '{"author": "A"}') AS a \gset
UPDATE book SET secret = 'changed';
SELECT poll.has_changes('{book}', :'b') AS book, poll.has_changes('{few}', :'f') AS few,
	   poll.has_changes('{keyless}', :'k') AS keyless, poll.has_changes('{by_author}', :'a', '{"author": "A"}') AS by_author;
UPDATE book SET "It's odd" = 2 WHERE id = 1;
SELECT poll.has_changes('{few}', :'f') AS few, poll.has_changes('{keyless}', :'k') AS keyless,
	   poll.has_changes('{by_author}', :'a', '{"author": "A"}') AS by_author;
UPDATE book SET title = 'Uno' WHERE id = 1;
SELECT key, data FROM poll.changes('few', :'f');
SELECT key, data FROM poll.changes('keyless', :'k');
SELECT key, data FROM poll.changes('by_author', :'a', scope => '{"author": "A"}');
SELECT poll.current_cursor('{few}') AS f, poll.current_cursor('{keyless}') AS k,
	   poll.current_cursor('{by_author}', '{"author": "A"}') AS a \gset
UPDATE book SET author = 'C' WHERE id = 1;
SELECT op, key FROM poll.changes('by_author', :'a', scope => '{"author": "A"}');
SELECT op, key, data FROM poll.changes('keyless', :'k');
UPDATE book SET id = DEFAULT WHERE title = 'Two';
SELECT op, key, data FROM poll.changes('keyless', :'k');
DELETE FROM book WHERE title = 'Uno';
SELECT op, key, data FROM poll.changes('few', :'f') ORDER BY version;

-- SELECT on what is shown, on the key and on the scope is enough, and needed
CREATE ROLE regress_poll_reader;
GRANT SELECT (id, author, title) ON book TO regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT feed FROM poll.feeds ORDER BY feed;
SELECT key, data FROM poll.changes('few');
SELECT count(*) FROM poll.changes('by_author', scope => '{"author": "C"}');
SELECT * FROM poll.rows(NULL::book, feed => 'few');
SELECT poll.poll('{book}');
SELECT poll.poll('{keyless}');
RESET ROLE;
REVOKE SELECT (id) ON book FROM regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT feed FROM poll.feeds ORDER BY feed;
SELECT poll.poll('{few}');
SELECT poll.poll('{by_author}', scope => '{"author": "C"}');
RESET ROLE;
GRANT SELECT (id) ON book TO regress_poll_reader;
REVOKE SELECT (author) ON book FROM regress_poll_reader;
SET ROLE regress_poll_reader;
SELECT poll.poll('{by_author}', scope => '{"author": "C"}');
RESET ROLE;
REVOKE ALL ON book FROM regress_poll_reader;
DROP ROLE regress_poll_reader;

-- values out of line: an UPDATE that leaves them alone is no change, one that changes them is
CREATE TABLE large (id int PRIMARY KEY, note text, body text);
ALTER TABLE large ALTER body SET STORAGE external;
SELECT poll.track('large'), poll.track('large', 'bodies', columns => '{body}');
INSERT INTO large SELECT 1, 'note', string_agg(md5(g::text), '') FROM generate_series(1, 1000) g;
SELECT poll.current_cursor('{large}') AS l, poll.current_cursor('{bodies}') AS b \gset
UPDATE large SET note = note, body = body;
SELECT count(*) FROM poll.changes('large', :'l');
UPDATE large SET note = 'other';
SELECT key, data->>'note' AS note, length(data->>'body') AS body FROM poll.changes('large', :'l');
SELECT count(*) FROM poll.changes('bodies', :'b');
UPDATE large SET body = overlay(body PLACING 'x' FROM 31999);
SELECT key, right(data->>'body', 2) AS body FROM poll.changes('bodies', :'b');
SELECT length(body) FROM poll.rows(NULL::large, feed => 'bodies');

-- track() refuses what are no columns
SELECT poll.track('book', 'x', columns => '{nothing}');
SELECT poll.track('book', 'x', columns => '{}');
SELECT poll.track('book', 'x', columns => '{title,title}');
SELECT poll.track('book', 'x', columns => '{title,NULL}');
SELECT poll.track('book', 'x', columns => '{ctid}');
SELECT poll.track('book', 'x', columns => '{........pg.dropped.4........}');

DROP TABLE book, large;
