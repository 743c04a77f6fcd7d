/*
 * routes.c
 *		What there is under which path.
 *
 * The only SQL is that of prepared statements, made of the command line. What
 * comes from a client is their one parameter.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "files.h"
#include "log.h"
#include "loop.h"
#include "options.h"
#include "routes.h"
#include "server.h"
#include "wait.h"

#define FIRST_FUNCTION	2		/* statement */
#define RPC				"/rpc/"

static const char *statements[FIRST_FUNCTION + MAX_FUNCTIONS] = {
	[POLL_STATEMENT] = "SELECT status, headers, body FROM poll.respond($1)",
	[POLLS_STATEMENT] = "SELECT r.status, r.headers, r.body"
	" FROM pg_catalog.jsonb_array_elements($1) WITH ORDINALITY AS q(request, n), poll.respond(q.request) AS r ORDER BY q.n"
};

/* ---- statements ---- */

/* As an identifier of SQL: in quotes, which are doubled within. */
static void
print_quoted(FILE *out, const char *name, size_t length)
{
	fputc('"', out);
	for (size_t i = 0; i < length; i++)
	{
		if (name[i] == '"')
			fputc('"', out);
		fputc(name[i], out);
	}
	fputc('"', out);
}

static char *
call_of(const char *function)
{
	const char *dot = strchr(function, '.');
	char	   *statement = NULL;
	size_t		size;
	FILE	   *out = open_memstream(&statement, &size);

	if (out == NULL)
		die("out of memory");
	fputs("SELECT ", out);
	print_quoted(out, function, dot - function);
	fputc('.', out);
	print_quoted(out, dot + 1, strlen(dot + 1));
	fputs("($1)", out);
	fclose(out);
	return statement;
}

void
routes_start(void)
{
	for (int i = 0; i < options.function_count; i++)
		statements[FIRST_FUNCTION + i] = call_of(options.functions[i]);
	pool_start(options.conninfo, options.connections, options.timeout, statements, FIRST_FUNCTION + options.function_count);
	if (options.static_folder != NULL)
		files_read(options.static_folder);
}

/* ---- which route ---- */

static void
answer_with(Request *request, Answer answer)
{
	request->answer = answer;
	request->answered = true;
}

static void
refuse_method(Request *request, const char *allowed)
{
	answer_with(request, answer_problem(MHD_HTTP_METHOD_NOT_ALLOWED, "the method is not allowed"));
	answer_header(&request->answer, MHD_HTTP_HEADER_ALLOW, allowed);
}

/* The statement of /rpc/NAME, or -1 */
static int
find_function(const char *name)
{
	for (int i = 0; i < options.function_count; i++)
		if (strcmp(strchr(options.functions[i], '.') + 1, name) == 0)
			return FIRST_FUNCTION + i;
	return -1;
}

/*
 * A page of another origin can send a form without asking, but not JSON: that
 * takes a preflight request, which is not answered.
 */
static bool
is_json(struct MHD_Connection *connection)
{
	const char *type = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);

	return type != NULL && strncasecmp(type, "application/json", 16) == 0 && strchr("; \t", type[16]) != NULL;
}

static void
begin_function(Request *request, const char *method, const char *name)
{
	request->route = ROUTE_FUNCTION;
	request->job.statement = find_function(name);
	if (request->job.statement < 0)
		answer_with(request, answer_problem(MHD_HTTP_NOT_FOUND, "there is no such function"));
	else if (strcmp(method, MHD_HTTP_METHOD_POST) != 0)
		refuse_method(request, "POST");
	else if (!is_json(request->connection))
		answer_with(request, answer_problem(MHD_HTTP_UNSUPPORTED_MEDIA_TYPE, "the Content-Type must be application/json"));
}

static Answer
health_answer(void)
{
	PoolState	pool = pool_state();

	if (pool.idle + pool.busy == 0)
		return answer_problem(MHD_HTTP_SERVICE_UNAVAILABLE, "there is no connection to the database");
	return answer_static(MHD_HTTP_OK, "text/plain", "ok\n", 3);
}

static void
begin_other(Request *request, const char *method, const char *path)
{
	const char *tag = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_IF_NONE_MATCH);
	Answer		answer;

	request->route = ROUTE_OTHER;
	if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 && strcmp(method, MHD_HTTP_METHOD_HEAD) != 0)
		refuse_method(request, "GET, HEAD");
	else if (strcmp(path, "/healthz") == 0)
		answer_with(request, health_answer());
	else if (strcmp(path, "/metrics") == 0)
		answer_with(request, metrics_answer(server_clients()));
	else if (files_answer(path, tag, &answer))
		answer_with(request, answer);
	else
		answer_with(request, answer_problem(MHD_HTTP_NOT_FOUND, "there is nothing here"));
}

void
routes_begin(Request *request, const char *method, const char *path)
{
	if (strcmp(path, "/poll") == 0 || strcmp(path, RPC "poll") == 0)
		request->route = ROUTE_POLL;
	else if (strncmp(path, RPC, strlen(RPC)) == 0)
		begin_function(request, method, path + strlen(RPC));
	else
		begin_other(request, method, path);
}

/* ---- to the database and back ---- */

/*
 * What poll.respond() is asked, without its end, to free; NULL: it is not UTF-8. HEAD is a GET,
 * of whose body libmicrohttpd only sends the size.
 */
static char *
respond_parameter(Request *request, const char *method)
{
	json_t	   *object,
			   *headers;
	char	   *tags,
			   *result;

	if (strcmp(method, MHD_HTTP_METHOD_HEAD) == 0)
		method = MHD_HTTP_METHOD_GET;
	object = json_pack("{s:s, s:s*}", "method", method, "query", request->query);
	if (object == NULL)
		return NULL;
	/* without those that are not UTF-8: they match nothing */
	tags = client_header_list(request->connection, MHD_HTTP_HEADER_IF_NONE_MATCH);
	headers = tags ? json_pack("{s:s}", "if-none-match", tags) : NULL;
	if (headers != NULL)
		json_object_set_new(object, "headers", headers);
	free(tags);
	client_identify(request->connection, object);
	if (strcmp(method, MHD_HTTP_METHOD_POST) == 0)
		json_object_set_new(object, "body", json_stringn(request->body ? request->body : "", request->body_size));
	result = json_dumps(object, JSON_COMPACT);
	json_decref(object);
	if (result != NULL)
		result[strlen(result) - 1] = '\0';
	return result;
}

static void
job_done(Job *job, PGresult *result)
{
	Request    *request = (Request *) ((char *) job - offsetof(Request, job));
	Result	   *shared = answer_result(result);

	free(job->parameter);
	answer_with(request, answer_value(shared));
	answer_release(shared);
	server_answered(request);
}

void
routes_run(Request *request, const char *method)
{
	bool		is_poll = request->route == ROUTE_POLL;
	Job		   *job = &request->job;
	char	   *parameter;

	if (request->body != NULL && memchr(request->body, '\0', request->body_size) != NULL)
	{
		answer_with(request, answer_problem(MHD_HTTP_BAD_REQUEST, "the body has a null byte"));
		return;
	}
	parameter = is_poll ? respond_parameter(request, method) :
		strndup(request->body ? request->body : "", request->body_size);
	if (parameter == NULL)
	{
		answer_with(request, answer_problem(MHD_HTTP_BAD_REQUEST, "the request is not UTF-8"));
		return;
	}
	server_suspend(request);
	if (is_poll)
	{
		request->parameter = parameter;
		wait_ask(request);
		return;
	}
	job->parameter = parameter;
	job->deadline = loop_now() + options.timeout;
	job->done = job_done;
	pool_submit(job);
}
