-- An API for polling with PostgREST: psql -v ON_ERROR_STOP=1 -f api.sql, as a superuser, in a
-- database that has poll_ext.

-- Roles: PostgREST logs in as authenticator and becomes what the token of a request says.
CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD 'change_me';
CREATE ROLE web_anon NOLOGIN;
CREATE ROLE web_user NOLOGIN;
CREATE ROLE api_owner NOLOGIN;
GRANT web_anon, web_user TO authenticator;

CREATE SCHEMA app AUTHORIZATION api_owner;
CREATE SCHEMA api AUTHORIZATION api_owner;

-- Whoever calls pgrst_poll says whose quota it takes.  Clients cannot: they reach the schema api
-- only.  They need the right nevertheless, since api.poll reads as whoever is asking.
GRANT EXECUTE ON FUNCTION poll.pgrst_poll TO web_anon, web_user;
-- This one is called for them.
GRANT EXECUTE ON FUNCTION poll.pgrst_pre_request TO api_owner;

-- How often: polls every two seconds, and five at once; everything else 60 times a minute.
SELECT poll.set_rate_policy('poll', quota => 1, per => '2 seconds', algorithm => 'gcra', burst => 5);
SELECT poll.set_rate_policy('default', quota => 60, per => '1 minute');

SET ROLE api_owner;

-- Tables.  Announcements are for all, messages for the members of their room.
CREATE TABLE app.announcement (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL);
CREATE TABLE app.member (room_id int, name text, PRIMARY KEY (room_id, name));
CREATE TABLE app.message (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, room_id int NOT NULL, author text NOT NULL, body text NOT NULL);
SELECT poll.track('app.announcement', 'announcements'), poll.track('app.member', 'members'), poll.track('app.message', 'messages');

-- Who is asking: the subject of the token.  A setting is '' after a transaction that had it.
CREATE FUNCTION app.user_name() RETURNS text LANGUAGE sql STABLE AS $$
	SELECT nullif(current_setting('request.jwt.claims', true), '')::json->>'sub'
$$;

ALTER TABLE app.member ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON app.member FOR SELECT USING (name = app.user_name());
ALTER TABLE app.message ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_members ON app.message FOR SELECT
	USING (EXISTS (SELECT FROM app.member AS m WHERE m.room_id = message.room_id AND m.name = app.user_name()));

-- Whose quota it is: the user's, or that of the address.  The last address is that of whoever
-- spoke to your proxy, and the only one that the proxy vouches for.
CREATE FUNCTION app.client() RETURNS text LANGUAGE sql STABLE AS $$
	SELECT coalesce('user ' || app.user_name(),
		poll.client_network(regexp_replace(nullif(current_setting('request.headers', true), '')::json->>'x-forwarded-for', '^.*,\s*', '')::inet),
		'nobody')
$$;

-- What clients see.  The views read as whoever is asking, so policies apply.
CREATE VIEW api.announcements WITH (security_invoker = true) AS SELECT * FROM app.announcement;
CREATE VIEW api.messages WITH (security_invoker = true) AS SELECT * FROM app.message;

-- GET /rpc/poll?feeds={announcements}&cursor=...  VOLATILE: a STABLE function would not be called
-- for HEAD.  SECURITY INVOKER: rows are read as whoever is asking.  The parameters have the names
-- of those of pgrst_poll, so that there is a Link to the next page.
CREATE FUNCTION api.poll(feeds text[], cursor text DEFAULT NULL, since timestamptz DEFAULT NULL,
	max_rows int DEFAULT 100, scope jsonb DEFAULT NULL)
RETURNS json LANGUAGE sql VOLATILE SECURITY INVOKER AS $$
	SELECT poll.pgrst_poll(feeds, cursor, since, max_rows, scope, client => app.client())
$$;

-- Before each request.  At each path: the feeds of all that its answer is computed from; whose
-- messages a user sees depends on the members, too.  /rpc/poll takes its quota itself, when it
-- knows that the answer is not 304.  SECURITY DEFINER: for roles that may not call it.
CREATE FUNCTION api.pre_request() RETURNS void LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = '' AS $$
	SELECT poll.pgrst_pre_request(
		'{"/announcements": ["announcements"], "/messages": ["messages", "members"]}',
		client => CASE WHEN current_setting('request.path', true) <> '/rpc/poll' THEN app.client() END)
$$;

GRANT USAGE ON SCHEMA api, app TO web_anon, web_user;
GRANT SELECT ON app.announcement, api.announcements TO web_anon, web_user;
GRANT SELECT ON app.member, app.message, api.messages TO web_user;

INSERT INTO app.announcement (body) VALUES ('Welcome'), ('Free coffee'), ('No coffee');
INSERT INTO app.member VALUES (1, 'ann'), (1, 'bob'), (2, 'bob');
INSERT INTO app.message (room_id, author, body) VALUES (1, 'ann', 'hello'), (1, 'bob', 'hi'), (2, 'bob', 'anybody here?');

RESET ROLE;
