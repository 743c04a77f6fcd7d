/*
 * pgrst.c
 *		PostgREST: a poll, conditional requests and limits, in its own terms.
 *
 * PostgREST does each request in a transaction: it sets what the client sent
 * (request.headers, request.method, ...), calls the function that is named in
 * db-pre-request, runs one statement, and looks at response.status and
 * response.headers.  So a function answers by these settings: its headers go
 * behind those that others have set.
 *
 * A pre-request function cannot answer that way, since the statement would run
 * nevertheless.  It raises an error of SQLSTATE PGRST, which says status and
 * headers.  That is no incident, so it stays out of the server's log.
 *
 * Errors that a client can do something about are raised as they are: PostgREST
 * makes a status of PTnnn.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/json.h"

#include "etag.h"
#include "http.h"
#include "pgrst.h"
#include "response.h"

#define ERRCODE_PGRST	MAKE_SQLSTATE('P', 'G', 'R', 'S', 'T')

#define REQUEST_HEADERS	"request.headers"
#define REQUEST_METHOD	"request.method"
#define REQUEST_PATH	"request.path"
#define ANSWER_HEADERS	"response.headers"
#define ANSWER_STATUS	"response.status"

/* what an answer depends on; PostgREST itself would say the last three */
#define VARY			"Authorization, Accept-Profile, Accept, Prefer, Range"

#define TOO_MANY		"\"code\":\"PT429\",\"message\":\"too many requests\",\"hint\":\"Ask again after retry_after seconds.\""

/* what any answer may depend on, beside its parameters */
static const char *const variant_settings[] = {
	REQUEST_PATH,
	"request.cookies",
	"request.jwt.claims",
};
static const char *const variant_headers[] = {
	"accept",
	"accept-language",
	"accept-profile",
	"prefer",
	"range",
	"range-unit",
};

PG_FUNCTION_INFO_V1(poll_ext_pgrst_poll);
PG_FUNCTION_INFO_V1(poll_ext_pgrst_pre_request);

static emit_log_hook_type previous_hook = NULL;

/* ---- settings ---- */

/* What it is set to; NULL if it is not, or was in an earlier transaction. */
static const char *
setting(const char *name)
{
	const char *value = GetConfigOption(name, true, false);

	return value != NULL && *value != '\0' ? value : NULL;
}

static void
set_setting(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
}

static void
setting_context(void *name)
{
	errcontext("setting %s", (const char *) name);
}

static void
bad_setting(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("a setting is not as PostgREST knows it"),
			 errdetail_internal("%s", detail)));
}

/* The JSON of a setting; NULL if there is none. */
static Jsonb *
json_setting(const char *name)
{
	const char *value = setting(name);
	ErrorContextCallback context;
	Jsonb	   *json;

	if (value == NULL)
		return NULL;
	context.previous = error_context_stack;
	context.callback = setting_context;
	context.arg = unconstify(char *, name);
	error_context_stack = &context;
	json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(value)));
	error_context_stack = context.previous;
	return json;
}

static Jsonb *
request_headers(void)
{
	Jsonb	   *headers = json_setting(REQUEST_HEADERS);

	if (headers != NULL && !JB_ROOT_IS_OBJECT(headers))
		bad_setting(REQUEST_HEADERS " must be a JSON object.");
	return headers;
}

/* The value of a header of the request, by its name in lower case, or NULL. */
static char *
request_header(Jsonb *headers, const char *name)
{
	return headers != NULL ? poll_http_text(headers, name) : NULL;
}

/* If-None-Match counts for requests that only read. */
static bool
is_conditional(void)
{
	const char *method = setting(REQUEST_METHOD);

	return method != NULL && (strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0);
}

static text *
if_none_match(Jsonb *headers)
{
	char	   *value = request_header(headers, "if-none-match");

	return value != NULL ? cstring_to_text(value) : NULL;
}

/* ---- answers ---- */

/* Those that pages of other origins may read; PostgREST names only its own. */
static void
expose_headers(PollResponse *response)
{
	poll_response_header(response, "Access-Control-Expose-Headers", POLL_RESPONSE_EXPOSED);
}

/* Puts the headers behind those that the answer has already. */
static void
send_headers(PollResponse *response)
{
	Jsonb	   *before;
	StringInfoData buf;

	if (response->headers == NIL)
		return;
	before = json_setting(ANSWER_HEADERS);
	initStringInfo(&buf);
	appendStringInfoChar(&buf, '[');
	if (before != NULL)
	{
		char	   *list = JsonbToCString(NULL, &before->root, VARSIZE(before));

		if (!JB_ROOT_IS_ARRAY(before) || JB_ROOT_IS_SCALAR(before))
			bad_setting(ANSWER_HEADERS " must be a JSON array.");
		/* without its brackets */
		appendBinaryStringInfo(&buf, list + 1, strlen(list) - 2);
		if (JB_ROOT_COUNT(before) > 0)
			appendStringInfoChar(&buf, ',');
	}
	expose_headers(response);
	appendStringInfoChar(&buf, '{');
	poll_response_write(&buf, response, "},{");
	appendStringInfoString(&buf, "}]");
	set_setting(ANSWER_HEADERS, buf.data);
}

/*
 * Ends the request with a response that has no body of its own.  error: members
 * of a JSON object.
 */
static void
poll_pgrst_raise(PollResponse *response, const char *error)
{
	StringInfoData detail;

	expose_headers(response);
	initStringInfo(&detail);
	appendStringInfo(&detail, "{\"status\":%d,\"headers\":{", response->status);
	poll_response_write(&detail, response, ",");
	appendStringInfoString(&detail, "}}");
	ereport(ERROR,
			(errcode(ERRCODE_PGRST),
			 errmsg_internal("{%s}", error),
			 errdetail_internal("%s", detail.data)));
}

/*
 * Exactly the errors of poll_pgrst_raise() are not for the log, nor for other
 * hooks, which would write them elsewhere.  An error knows the C function that
 * it came from; nobody can raise one in its name in SQL.
 */
static void
keep_out_of_log(ErrorData *edata)
{
	if (edata->sqlerrcode == ERRCODE_PGRST && edata->funcname != NULL &&
		strcmp(edata->funcname, "poll_pgrst_raise") == 0)
		edata->output_to_server = false;
	else if (previous_hook)
		previous_hook(edata);
}

void
poll_pgrst_install(void)
{
	previous_hook = emit_log_hook;
	emit_log_hook = keep_out_of_log;
}

/* ---- poll.pgrst_poll() ---- */

/* Does the function that is at the path take these parameters? */
static bool
takes_parameters(const char *path, List *names)
{
	const char *name = path + strlen("/rpc/");

	return strncmp(path, "/rpc/", strlen("/rpc/")) == 0 && strlen(name) < NAMEDATALEN &&
		FuncnameGetCandidates(list_make1(makeString(pstrdup(name))), list_length(names), names,
							  false, true, false, true) != NULL;
}

/*
 * A link to the next page, if the function that the client has called can be
 * asked for it by the same names.
 */
static void
add_next(PollTask *task)
{
	const char *path = setting(REQUEST_PATH);
	const PollSelection *selection = &task->request.selection;
	PollHttpRequest next = {0};
	List	   *names = list_make2("feeds", "cursor");

	next.feeds_list = OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(selection->names));
	next.max_rows = task->max_rows;
	next.has_max_rows = task->max_rows != POLL_HTTP_DEFAULT_MAX_ROWS;
	if (next.has_max_rows)
		names = lappend(names, "max_rows");
	if (selection->scope != NULL)
	{
		next.scope_text = JsonbToCString(NULL, &selection->scope->root, 0);
		names = lappend(names, "scope");
	}
	if (path != NULL && takes_parameters(path, names))
		poll_response_link(&task->response, &next, task->cursor, "next");
}

/* The answer, with the tag in it for clients that see no headers. */
static text *
add_tag(text *body, text *tag)
{
	Size		length = VARSIZE(body) - 1; /* without the brace at the end */
	StringInfoData member;

	initStringInfo(&member);
	appendStringInfoString(&member, ",\"etag\":");
	escape_json(&member, text_to_cstring(tag));
	appendStringInfoChar(&member, '}');
	body = repalloc(body, length + member.len);
	memcpy((char *) body + length, member.data, member.len);
	SET_VARSIZE(body, length + member.len);
	return body;
}

/* What is not said by poll_response_finish(). */
static void
complete_response(PollTask *task)
{
	PollResponse *response = &task->response;

	if (response->status == 429)
	{
		response->body = cstring_to_text(psprintf("{" TOO_MANY ",\"details\":null,\"retry_after\":" INT64_FORMAT "}",
												  response->retry_after));
		poll_response_header(response, "Cache-Control", "no-store");
		return;
	}
	poll_response_validator(response, task->tag, VARY);
	if (response->status == 200)
		response->body = add_tag(response->body, task->tag);
	if (response->status == 304)
		poll_response_header(response, "Content-Length", "0");
	if (task->has_more)
		add_next(task);
}

/*
 * poll.pgrst_poll(feeds text[], cursor text, since timestamptz, max_rows int,
 * scope jsonb, client text) returns json
 */
Datum
poll_ext_pgrst_poll(PG_FUNCTION_ARGS)
{
	PollTask	task = {0};
	PollResponse *response = &task.response;
	TimestampTz since;

	task.cursor = poll_arg_text(fcinfo, 1);
	task.max_rows = poll_arg_max_rows(fcinfo, 3);
	task.client = poll_arg_text(fcinfo, 5);
	task.if_none_match = is_conditional() ? if_none_match(request_headers()) : NULL;
	poll_response_begin(&task, poll_arg_feeds(fcinfo, 0), poll_arg_scope(fcinfo, 4),
						poll_arg_time(fcinfo, 2, &since));
	if (response->status == 0)
		poll_response_finish(&task);
	complete_response(&task);
	send_headers(response);
	if (response->status != 200)
		set_setting(ANSWER_STATUS, psprintf("%d", response->status));
	if (response->body == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(response->body);
}

/* ---- poll.pgrst_pre_request() ---- */

static void
append_part(StringInfo buf, const char *value)
{
	if (value == NULL)
		appendStringInfoChar(buf, '-');
	else
		appendStringInfo(buf, "%zu:%s", strlen(value), value);
}

/*
 * Whatever the answer may depend on, beside the feeds and the parameters: each
 * address has its own tags.  The role is that of the client, also in a function
 * of SECURITY DEFINER.
 */
static text *
request_variant(Jsonb *headers, text *more)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%u", GetOuterUserId());
	for (int i = 0; i < lengthof(variant_settings); i++)
		append_part(&buf, setting(variant_settings[i]));
	for (int i = 0; i < lengthof(variant_headers); i++)
		append_part(&buf, request_header(headers, variant_headers[i]));
	append_part(&buf, more != NULL ? text_to_cstring(more) : NULL);
	return cstring_to_text_with_len(buf.data, buf.len);
}

/* The feeds of what is asked for, or NULL. */
static ArrayType *
feeds_of_path(Jsonb *feeds)
{
	const char *path = setting(REQUEST_PATH);
	JsonbValue *value;

	if (!JB_ROOT_IS_OBJECT(feeds))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("feeds must be a JSON object"),
				 errdetail("Its members are request paths, each with an array of feeds.")));
	value = path != NULL ? poll_http_member(feeds, path) : NULL;
	return value != NULL ? poll_http_feeds(value) : NULL;
}

/*
 * Ends the request with 304 if the client has what it would get.
 *
 * The tag is one of the snapshot of this statement, and the answer is computed
 * under a later one.  So what is committed in between goes out with the tag of
 * what was before, and is sent once more: the next tag is another one.  The
 * other way round, a client could have the new tag with the old contents, and
 * be told forever that it is up to date.
 */
static void
check_precondition(PollResponse *response, ArrayType *feeds, text *variant)
{
	Jsonb	   *headers = request_headers();
	text	   *tag = poll_etag_of_feeds(feeds, NULL, request_variant(headers, variant));
	text	   *condition = if_none_match(headers);

	poll_response_validator(response, tag, VARY);
	/* not for *: whoever may not read it could watch its tag change */
	if (condition == NULL || !poll_if_none_match(condition, tag, false))
		return;
	response->status = 304;
	poll_response_header(response, "Content-Length", "0");
	poll_pgrst_raise(response, "\"code\":\"PT304\",\"message\":\"not modified\",\"details\":\"\",\"hint\":\"\"");
}

static void
check_limit(text *client, text *endpoint, PollResponse *response)
{
	PollResponse refusal = {0};

	if (poll_response_rate(&refusal, client, VARDATA_ANY(endpoint), VARSIZE_ANY_EXHDR(endpoint), false))
	{
		response->headers = list_concat(response->headers, refusal.headers);
		return;
	}
	poll_response_header(&refusal, "Cache-Control", "no-store");
	poll_pgrst_raise(&refusal, psprintf(TOO_MANY ",\"details\":\"{\\\"retry_after\\\":" INT64_FORMAT "}\"",
										refusal.retry_after));
}

/*
 * poll.pgrst_pre_request(feeds jsonb, client text, endpoint text, variant text)
 * returns void
 */
Datum
poll_ext_pgrst_pre_request(PG_FUNCTION_ARGS)
{
	PollResponse response = {0};
	ArrayType  *feeds = PG_ARGISNULL(0) ? NULL : feeds_of_path(PG_GETARG_JSONB_P(0));

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("endpoint must not be null")));
	if (feeds != NULL && is_conditional())
		check_precondition(&response, feeds, poll_arg_text(fcinfo, 3));
	check_limit(poll_arg_text(fcinfo, 1), PG_GETARG_TEXT_PP(2), &response);
	send_headers(&response);
	PG_RETURN_VOID();
}
