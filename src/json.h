/*
 * json.h
 *		Values as JSON text, the same as row_to_json() writes them.
 */
#ifndef POLL_JSON_H
#define POLL_JSON_H

#include "fmgr.h"
#include "lib/stringinfo.h"

typedef enum PollJsonKind
{
	POLL_JSON_BOOL,
	POLL_JSON_INTEGER,
	POLL_JSON_NUMBER,			/* if its text is a JSON number */
	POLL_JSON_DATETIME,
	POLL_JSON_RAW,				/* json and jsonb */
	POLL_JSON_TEXT,
	POLL_JSON_STRING,			/* by output function */
	POLL_JSON_ANY				/* by to_json() */
} PollJsonKind;

/* How to write a column: looked up once, used for every row. */
typedef struct PollJsonWriter
{
	char	   *label;			/* "name": */
	Oid			type;			/* below any domain */
	PollJsonKind kind;
	FmgrInfo	function;
} PollJsonWriter;

/* Everything is allocated in the current memory context. */
extern void poll_json_writer_init(PollJsonWriter *writer, const char *name, Oid type);

/* Appends the value; leaves garbage in the current memory context. */
extern void poll_json_write(StringInfo buf, PollJsonWriter *writer, Datum value);

#endif							/* POLL_JSON_H */
