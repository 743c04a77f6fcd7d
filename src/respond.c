/*
 * respond.c
 *		poll.respond(): a request over HTTP, answered completely.
 *
 * A gateway passes on what it has got and sends what it gets: status, headers
 * and body.  What is decided here, in this order: is it a request (400, 405),
 * are the feeds there for the caller (404), is the cursor good (410), may the
 * client ask now (429); then the answer is made, if the snapshot is not older
 * than the cursor (503), and if the client has it already (If-None-Match) it is
 * a 304, which costs no quota if there was nothing to read.
 *
 * A client that wants to wait for news (wait=20) is answered when there are some, or that
 * time is over.  Who asks for many clients says "suspend", for how long at most, and gets
 * a row without a status at once: its body says how long, and for what (suspend.c).
 *
 * Errors that a client can do something about are caught in a subtransaction,
 * and become problem details (RFC 9457).  On a standby, a query that conflicts
 * with recovery is canceled by ending the session, since that is how the server
 * does it in a subtransaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#include "answer.h"
#include "error.h"
#include "guc.h"
#include "http.h"
#include "response.h"
#include "suspend.h"
#include "wait.h"

#define METHODS			"GET, HEAD, POST, OPTIONS"

typedef struct PollRespond
{
	Jsonb	   *json;
	PollHttpRequest http;
	bool		reading;		/* the request itself is good */
	bool		pushed;			/* a snapshot */
	PollTask	task;
} PollRespond;

PG_FUNCTION_INFO_V1(poll_ext_respond);

/* ---- problems ---- */

static const char *
reason(int status)
{
	switch (status)
	{
		case 400:
			return "Bad Request";
		case 404:
			return "Not Found";
		case 405:
			return "Method Not Allowed";
		case 410:
			return "Gone";
		case 429:
			return "Too Many Requests";
		default:
			return "Service Unavailable";
	}
}

static void
append_member(StringInfo buf, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(buf, ",\"%s\":", name);
	escape_json(buf, value);
}

/* more: members of a JSON object, each after a comma */
static void
problem(PollResponse *response, int status, const char *detail, const char *more)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"type\":\"about:blank\",\"title\":\"%s\",\"status\":%d",
					 reason(status), status);
	append_member(&buf, "detail", detail);
	appendStringInfo(&buf, "%s}", more);
	response->status = status;
	response->body = cstring_to_text_with_len(buf.data, buf.len);
	poll_response_header(response, "Content-Type", "application/problem+json");
	poll_response_header(response, "Cache-Control", "no-store");
	if (status == 503)
		poll_response_header(response, "Retry-After", "1");
}

/*
 * The status that tells of an error, or 0 for one that the client did not cause
 * and must not see: it may come from a policy or a type, and tell of rows.
 */
static int
error_status(int sqlstate, bool reading)
{
	switch (sqlstate)
	{
		case ERRCODE_POLL_BAD_REQUEST:
			return 400;
		case ERRCODE_POLL_NOT_FOUND:
			return 404;
		case ERRCODE_POLL_EXPIRED:
			return 410;
		case ERRCODE_T_R_SERIALIZATION_FAILURE:
		case ERRCODE_LOCK_NOT_AVAILABLE:
			return 503;
	}
	if (!reading && (ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_DATA_EXCEPTION ||
					 sqlstate == ERRCODE_STATEMENT_TOO_COMPLEX))
		return 400;
	return 0;
}

static void
error_problem(PollResponse *response, int status, const ErrorData *error, const PollHttpRequest *request)
{
	StringInfoData buf;

	initStringInfo(&buf);
	append_member(&buf, "reason", error->detail);
	append_member(&buf, "hint", error->hint);
	append_member(&buf, "code", unpack_sql_state(error->sqlerrcode));
	problem(response, status, error->message, buf.data);
	if (status == 410)
		poll_response_link(response, request, NULL, "first");
}

/* ---- the answer ---- */

/* Does the client have to wait?  Then the response is a problem. */
static bool
finish_refusal(PollResponse *response)
{
	if (response->status == 429)
		problem(response, 429, "too many requests",
				psprintf(",\"retry_after\":" INT64_FORMAT, response->retry_after));
	else if (response->status == 503)
		problem(response, 503, "the server has not caught up with the cursor", "");
	else
		return false;
	return true;
}

/* Is it a request that can be answered?  If not, that is the response. */
static void
begin_poll(PollRespond *self)
{
	PollHttpRequest *http = &self->http;
	PollTask   *task = &self->task;

	poll_http_parse(self->json, http);
	task->cursor = http->cursor;
	task->max_rows = http->max_rows;
	task->client = http->client;
	task->refuse_behind = true;
	if (strcmp(http->method, "POST") != 0)
	{
		task->if_none_match = http->if_none_match;
		task->response.max_age = poll_public_max_age;
	}
	poll_response_begin(task, http->feeds, http->scope, http->since);
	(void) finish_refusal(&task->response);
}

/* "20000 17:42": milliseconds, and signals. False: there is something already. */
static bool
suspend(PollRespond *self, int ms)
{
	PollTask   *task = &self->task;
	text	   *signals = poll_suspend(&task->request.selection, task->cursor);

	if (signals != NULL)
		task->response.body = cstring_to_text(psprintf("%d %s", ms, text_to_cstring(signals)));
	return signals != NULL;
}

/*
 * Waits until there is something to say; false: the response is that somebody else
 * does.  Only a cursor can say what is news.  What follows is to be as of now.
 */
static bool
wait_for_news(PollRespond *self)
{
	PollTask   *task = &self->task;
	PollRequest *request = &task->request;
	int			max = poll_http_number(self->json, "suspend");
	int			ms = max < 0 ? self->http.wait : Min(self->http.wait, max);

	if (ms == 0 || request->start != POLL_START_CURSOR || !poll_wait_possible())
		return true;
	if (!poll_has_changes(request))
	{
		if (max >= 0 && suspend(self, ms))
			return false;
		if (max < 0)
			(void) poll_wait(request->selection.names, request->selection.scope, task->cursor, ms);
		self->pushed = true;
		PushActiveSnapshot(GetLatestSnapshot());
	}
	/* a look leaves nothing of the request that is to be relied on */
	poll_request_init(request, request->selection.names, request->selection.scope, task->cursor, NULL);
	request->fresh = true;
	return true;
}

static void
finish_poll(PollRespond *self)
{
	PollTask   *task = &self->task;
	PollResponse *response = &task->response;

	self->reading = true;
	poll_response_finish(task);
	if (finish_refusal(response))
		return;
	if (response->status == 200)
		poll_response_header(response, "Content-Type", "application/json");
	if (task->has_more)
		poll_response_link(response, &self->http, task->cursor, "next");
	poll_response_validator(response, task->tag, "Authorization");
}

/* Makes a response, also of an error that the client can do something about. */
static void
try_poll(PollRespond *self)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		begin_poll(self);
		if (self->task.response.status == 0 && wait_for_news(self))
			finish_poll(self);
		if (self->pushed)
			PopActiveSnapshot();
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
	}
	PG_CATCH();
	{
		ErrorData  *error;
		int			status;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		status = error_status(error->sqlerrcode, self->reading);
		if (status == 0)
			ReThrowError(error);
		self->task.response.headers = NIL;
		error_problem(&self->task.response, status, error, &self->http);
	}
	PG_END_TRY();
}

static void
add_cors(PollResponse *response, bool preflight)
{
	if (poll_cors_origin[0] == '\0')
		return;
	poll_response_header(response, "Access-Control-Allow-Origin", poll_cors_origin);
	if (preflight)
	{
		poll_response_header(response, "Access-Control-Allow-Methods", METHODS);
		poll_response_header(response, "Access-Control-Allow-Headers", "Authorization, Content-Type, If-None-Match");
		poll_response_header(response, "Access-Control-Max-Age", "86400");
	}
	else
		poll_response_header(response, "Access-Control-Expose-Headers", POLL_RESPONSE_EXPOSED);
}

static void
respond(PollRespond *self)
{
	PollResponse *response = &self->task.response;
	const char *method = JB_ROOT_IS_OBJECT(self->json) ? poll_http_method(self->json) : "GET";
	bool		options = strcmp(method, "OPTIONS") == 0;

	if (options)
	{
		response->status = 200;
		poll_response_header(response, "Allow", METHODS);
	}
	else if (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0 || strcmp(method, "POST") == 0)
		try_poll(self);
	else
	{
		problem(response, 405, "the method is not allowed", "");
		poll_response_header(response, "Allow", METHODS);
	}
	add_cors(response, options);
	if (strcmp(method, "HEAD") == 0)
		response->body = NULL;
}

/*
 * Not a client's request, but one of a gateway that has suspended some: is it, and if
 * so, what is the response?
 */
static bool
respond_to_gateway(PollRespond *self)
{
	PollResponse *response = &self->task.response;
	char	   *signals = poll_http_text(self->json, "wait_for");
	int			wake = poll_http_number(self->json, "wake");

	if (signals != NULL)
		response->body = poll_suspend_wait(signals, Min(Max(poll_http_number(self->json, "timeout"), 0), POLL_SUSPEND_MAX_MS));
	else if (wake >= 0)
		poll_suspend_wake(wake);
	return signals != NULL || wake >= 0;
}

/* poll.respond(request jsonb) returns poll.response */
Datum
poll_ext_respond(PG_FUNCTION_ARGS)
{
	PollRespond *self = palloc0(sizeof(PollRespond));
	PollResponse *response = &self->task.response;
	StringInfoData headers;
	TupleDesc	desc;
	Datum		values[3];
	bool		nulls[3] = {0};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	self->json = PG_GETARG_JSONB_P(0);
	if (!JB_ROOT_IS_OBJECT(self->json) || !respond_to_gateway(self))
		respond(self);

	initStringInfo(&headers);
	appendStringInfoChar(&headers, '{');
	poll_response_write(&headers, response, ",");
	appendStringInfoChar(&headers, '}');

	values[0] = Int32GetDatum(response->status);
	nulls[0] = response->status == 0;
	values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(headers.data));
	values[2] = PointerGetDatum(response->body);
	nulls[2] = response->body == NULL;
	return HeapTupleGetDatum(heap_form_tuple(desc, values, nulls));
}
