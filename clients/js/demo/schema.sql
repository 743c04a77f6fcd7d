--
-- The database of the demo page. As a superuser, in a database with the extension
-- poll_ext, which must be preloaded for the rate limit:
--
--   psql -v ON_ERROR_STOP=1 -f schema.sql
--
-- Then the gateway connects as demo_web and may call api.save_task and
-- api.delete_task.
--
BEGIN;

CREATE TABLE tasks (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	title text NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
	done boolean NOT NULL DEFAULT false,
	updated_at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO tasks (title, done) VALUES
	('Open this page twice', false),
	('Change something in one of them', false),
	('Watch it come to the other', false),
	('Read what polling does', true);

SELECT poll.track('tasks');

-- 30 at once, and two a second from then on
SELECT poll.set_rate_policy('poll', quota => 120, per => '1 minute', algorithm => 'gcra', burst => 30);

CREATE SCHEMA api;

-- A field of a task, or null if it is not there. Of another type it is an error.
CREATE FUNCTION api.field(task jsonb, name text, type text) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE SET search_path = '' AS $$
BEGIN
	IF jsonb_typeof(task) IS DISTINCT FROM 'object' THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = 'a task must be an object';
	ELSIF task->name IS NULL OR task->name = 'null' THEN
		RETURN NULL;
	ELSIF jsonb_typeof(task->name) <> type THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = format('%s must be a %s', name, type);
	END IF;
	RETURN task->name;
END
$$;

-- The id of a task, or null
CREATE FUNCTION api.task_id(task jsonb) RETURNS bigint
LANGUAGE plpgsql IMMUTABLE SET search_path = '' AS $$
DECLARE
	id text := api.field(task, 'id', 'number');
BEGIN
	IF id !~ '^[0-9]{1,18}$' THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = 'id must be a whole number';
	END IF;
	RETURN id::bigint;
END
$$;

-- save_task({"title": ..., "done": ...}) adds a task; with an "id" it changes the
-- fields that are there. Returns the task.
CREATE FUNCTION api.save_task(task jsonb) RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
	task_id bigint := api.task_id(task);
	new_title text := btrim(api.field(task, 'title', 'string') #>> '{}');
	new_done boolean := api.field(task, 'done', 'boolean')::boolean;
	saved public.tasks;
BEGIN
	IF new_title = '' OR (new_title IS NULL AND task_id IS NULL) THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = 'a task needs a title';
	ELSIF length(new_title) > 200 THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = 'the title is too long',
			DETAIL = format('It has %s characters; 200 are allowed.', length(new_title));
	END IF;

	IF task_id IS NULL THEN
		IF (SELECT count(*) FROM (SELECT FROM public.tasks LIMIT 10000) t) = 10000 THEN
			RAISE SQLSTATE 'PT400' USING MESSAGE = 'there are too many tasks', HINT = 'Delete some.';
		END IF;
		INSERT INTO public.tasks (title, done) VALUES (new_title, coalesce(new_done, false))
		RETURNING * INTO saved;
	ELSE
		UPDATE public.tasks AS t
		   SET title = coalesce(new_title, t.title), done = coalesce(new_done, t.done), updated_at = now()
		 WHERE t.id = task_id
		RETURNING * INTO saved;
		IF NOT FOUND THEN
			RAISE SQLSTATE 'PT404' USING MESSAGE = format('there is no task %s', task_id);
		END IF;
	END IF;
	RETURN row_to_json(saved);
END
$$;

-- delete_task({"id": ...}) returns whether there was such a task.
CREATE FUNCTION api.delete_task(task jsonb) RETURNS json
LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$
DECLARE
	task_id bigint := api.task_id(task);
BEGIN
	IF task_id IS NULL THEN
		RAISE SQLSTATE 'PT400' USING MESSAGE = 'id is missing';
	END IF;
	DELETE FROM public.tasks WHERE id = task_id;
	RETURN json_build_object('deleted', FOUND);
END
$$;

-- A role belongs to the whole server, and may be there already.
SELECT 'CREATE ROLE demo_web LOGIN' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'demo_web') \gexec

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA api FROM PUBLIC;
GRANT USAGE ON SCHEMA api TO demo_web;
GRANT EXECUTE ON FUNCTION api.save_task, api.delete_task, poll.respond TO demo_web;
GRANT SELECT ON tasks TO demo_web;

COMMIT;
