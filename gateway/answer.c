/*
 * answer.c
 *		What goes back to a client.
 *
 * The database says what that is. What is decided here is only what the database
 * cannot say: that there is none, and which status belongs to an error of SQL.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "answer.h"
#include "log.h"

void
answer_header(Answer *answer, const char *name, const char *value)
{
	if (answer->response != NULL && MHD_add_response_header(answer->response, name, value) != MHD_YES)
		say("cannot send the header %s", name);
}

static Answer
answer_buffer(int status, const char *type, const char *body, size_t size, enum MHD_ResponseMemoryMode mode)
{
	Answer		answer = {.status = status,.size = size};

	answer.response = MHD_create_response_from_buffer(size, (void *) body, mode);
	answer_header(&answer, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	return answer;
}

Answer
answer_static(int status, const char *type, const char *body, size_t size)
{
	return answer_buffer(status, type, body, size, MHD_RESPMEM_PERSISTENT);
}

Answer
answer_text(int status, const char *type, const char *body)
{
	return answer_buffer(status, type, body, strlen(body), MHD_RESPMEM_MUST_COPY);
}

/* ---- problems ---- */

/* more: further members, to free; or NULL */
static Answer
make_problem(int status, const char *detail, json_t * more)
{
	json_t	   *problem = json_pack("{s:s, s:s, s:i, s:s*}", "type", "about:blank",
									"title", MHD_get_reason_phrase_for(status), "status", status, "detail", detail);
	char	   *body;
	Answer		answer;

	json_object_update(problem, more);
	body = json_dumps(problem, JSON_COMPACT);
	answer = answer_text(status, "application/problem+json", body != NULL ? body : "{}");
	answer_header(&answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (status == MHD_HTTP_SERVICE_UNAVAILABLE)
		answer_header(&answer, MHD_HTTP_HEADER_RETRY_AFTER, "1");
	free(body);
	json_decref(problem);
	json_decref(more);
	return answer;
}

Answer
answer_problem(int status, const char *detail)
{
	return make_problem(status, detail, NULL);
}

static bool
starts_with(const char *string, const char *start)
{
	return strncmp(string, start, strlen(start)) == 0;
}

/*
 * PTnnn is how SQL says that the status is nnn, as in PostgREST. 500: nobody's
 * business but the administrator's.
 */
static int
sqlstate_status(const char *sqlstate)
{
	if (starts_with(sqlstate, "PT") && sqlstate[2] >= '4' && sqlstate[2] <= '5' &&
		isdigit((unsigned char) sqlstate[3]) && isdigit((unsigned char) sqlstate[4]))
		return atoi(sqlstate + 2);
	if (strcmp(sqlstate, "P0001") == 0 ||	/* raise_exception */
		starts_with(sqlstate, "22") ||	/* data exception */
		starts_with(sqlstate, "23"))	/* integrity constraint violation */
		return MHD_HTTP_BAD_REQUEST;
	if (strcmp(sqlstate, "42501") == 0) /* insufficient_privilege */
		return MHD_HTTP_FORBIDDEN;
	if (strcmp(sqlstate, "40001") == 0 ||	/* serialization_failure */
		strcmp(sqlstate, "40P01") == 0 ||	/* deadlock_detected */
		strcmp(sqlstate, "55P03") == 0 ||	/* lock_not_available */
		starts_with(sqlstate, "53") ||	/* insufficient resources */
		starts_with(sqlstate, "57"))	/* operator intervention, and timeouts */
		return MHD_HTTP_SERVICE_UNAVAILABLE;
	return MHD_HTTP_INTERNAL_SERVER_ERROR;
}

/*
 * reveal: what was wrong, to the client; else only whether to try again.
 */
static Answer
error_answer(const PGresult *result, bool reveal)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
	int			status;

	if (PQresultStatus(result) == PGRES_TUPLES_OK)
	{
		say("a function returns %d rows of %d columns, and should return one", PQntuples(result), PQnfields(result));
		return answer_problem(MHD_HTTP_INTERNAL_SERVER_ERROR, NULL);
	}
	if (sqlstate == NULL)
		return answer_problem(MHD_HTTP_SERVICE_UNAVAILABLE, "the database does not answer");
	status = sqlstate_status(sqlstate);
	if (!reveal && status != MHD_HTTP_SERVICE_UNAVAILABLE)
		status = MHD_HTTP_INTERNAL_SERVER_ERROR;
	/* what the administrator has to mend */
	if (status >= 500 || status == MHD_HTTP_FORBIDDEN)
		say("%s (%s)", message, sqlstate);
	if (status >= 500)
		return answer_problem(status, NULL);
	return make_problem(status, message,
						json_pack("{s:s, s:s*, s:s*}", "code", sqlstate,
								  "reason", PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL),
								  "hint", PQresultErrorField(result, PG_DIAG_MESSAGE_HINT)));
}

/* ---- rows ---- */

Result *
answer_result(PGresult *result)
{
	Result	   *shared = malloc(sizeof(Result));

	if (shared == NULL)
		die("out of memory");
	shared->result = result;
	shared->users = 1;
	return shared;
}

void
answer_release(Result *result)
{
	if (--result->users > 0)
		return;
	PQclear(result->result);
	free(result);
}

static void
release(void *result)
{
	answer_release(result);
}

/* A column as the body, which stays in the result; one of many rows would keep them all. */
static Answer
column_answer(Result *shared, int status, int row, int column)
{
	PGresult   *result = shared->result;
	Answer		answer = {.status = status,.size = PQgetlength(result, row, column)};

	if (PQntuples(result) > 1)
	{
		answer.response = MHD_create_response_from_buffer(answer.size, PQgetvalue(result, row, column), MHD_RESPMEM_MUST_COPY);
		return answer;
	}
	answer.response = MHD_create_response_from_buffer_with_free_callback_cls(answer.size,
																			 PQgetvalue(result, row, column),
																			 release, shared);
	if (answer.response != NULL)
		shared->users++;
	return answer;
}

/* Are there such rows?  If not, the answer says so. */
static bool
has_row(const PGresult *result, int row, int columns, bool reveal, Answer *answer)
{
	if (PQresultStatus(result) == PGRES_TUPLES_OK && PQntuples(result) > row && PQnfields(result) == columns)
		return true;
	*answer = error_answer(result, reveal);
	return false;
}

Answer
answer_row(Result *shared, int row)
{
	PGresult   *result = shared->result;
	Answer		answer;
	json_t	   *headers,
			   *value;
	const char *name;

	/*
	 * an error of poll.respond() comes from a policy or a type, and may tell
	 * of rows
	 */
	if (!has_row(result, row, 3, false, &answer))
		return answer;
	headers = json_loads(PQgetvalue(result, row, 1), 0, NULL);
	answer = column_answer(shared, atoi(PQgetvalue(result, row, 0)), row, 2);
#if MHD_VERSION >= 0x00097701
	if (answer.status == MHD_HTTP_NOT_MODIFIED && answer.response != NULL)
		MHD_set_response_options(answer.response, MHD_RF_HEAD_ONLY_RESPONSE, MHD_RO_END);
#endif
	json_object_foreach(headers, name, value)
		answer_header(&answer, name, json_string_value(value));
	json_decref(headers);
	return answer;
}

Answer
answer_value(Result *shared)
{
	Answer		answer;

	if (PQntuples(shared->result) > 1)
		return error_answer(shared->result, true);
	if (!has_row(shared->result, 0, 1, true, &answer))
		return answer;
	if (PQgetisnull(shared->result, 0, 0))
		answer = answer_text(MHD_HTTP_OK, "application/json", "null");
	else
	{
		answer = column_answer(shared, MHD_HTTP_OK, 0, 0);
		answer_header(&answer, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
	}
	answer_header(&answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	return answer;
}
