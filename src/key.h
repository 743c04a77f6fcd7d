/*
 * key.h
 *		The key of a tracked table, and its text form in the log.
 */
#ifndef POLL_KEY_H
#define POLL_KEY_H

#include "access/attnum.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/relcache.h"

typedef struct PollKeyColumn
{
	AttrNumber	attnum;			/* in the table */
	Oid			type;			/* below any domain */
	int32		typmod;
	bool		is_domain;
	int16		typlen;
	bool		typbyval;
	char		typalign;
	Oid			collation;		/* of the index, if not the column's own */
	Oid			eq_operator;	/* of the index */
	Oid			sort_operator;	/* its order: < or, if descending, > */
	Oid			after_operator; /* > or, if descending, < */
	Oid			from_operator;	/* >= or, if descending, <= */
	bool		descending;
	int			settings;		/* those that its text form depends on */
	bool		checked_input;	/* can its input function fail? */
	FmgrInfo	output;
	FmgrInfo	input;
	Oid			ioparam;
} PollKeyColumn;

typedef struct PollKey
{
	int			ncolumns;
	PollKeyColumn columns[FLEXIBLE_ARRAY_MEMBER];
} PollKey;

/*
 * The oid of the index that holds the table's key: the primary key or else the
 * replica identity index; InvalidOid if it has neither.
 */
extern Oid	poll_key_index(Relation rel);

/* The table's key, in the current memory context; errors if it has none. */
extern PollKey *poll_key_build(Relation rel);

/*
 * Some columns, by name, as if they were a key, but with no operator other
 * than eq_operator; errors if there is no such column or operator.
 */
extern PollKey *poll_key_of_columns(Relation rel, List *names);

/* Makes a key of one table fit another with the same columns: a partition. */
extern void poll_key_map(PollKey *key, Relation from, Relation to);

/* The number of a column; errors if there is none of that name. */
extern AttrNumber poll_key_attnum(Relation rel, const char *name);

/* Appends the key of the table's row in the slot, as the log stores it. */
extern void poll_key_append(StringInfo buf, PollKey *key, TupleTableSlot *slot);

/* Appends the value of one column; a key is its columns' values in order. */
extern void poll_key_append_value(StringInfo buf, PollKeyColumn *column, Datum value);

/* Likewise of a column whose value has that text. */
extern void poll_key_append_text(StringInfo buf, const char *data, int len);

/*
 * Turns nkeys stored keys into values: values[i * ncolumns + c], and valid[i]
 * is false for a key that is none of the table's current key type.  untrusted:
 * they come from a client.
 */
extern void poll_key_parse(PollKey *key, const char *const *keys, const int *lengths, int nkeys,
						   bool untrusted, Datum *values, bool *valid);

/*
 * Reads the first column of a text that this server has stored, and returns
 * what is behind it.
 */
extern const char *poll_key_parse_value(PollKeyColumn *column, const char *data, const char *end,
										Datum *value);

/*
 * Splits a stored key into its columns' texts (palloc'd); returns how many, or
 * -1 if it is not a stored key or has more than max columns.
 */
extern int	poll_key_split(const char *data, int len, char **texts, int max);

/*
 * The values of a scope's columns, which may be null, and the channel of the
 * log that such a text belongs to.
 */
extern void poll_scope_append(StringInfo buf, PollKey *scope, TupleTableSlot *slot);
extern void poll_scope_append_value(StringInfo buf, PollKeyColumn *column, Datum value,
									bool isnull);
extern int64 poll_scope_channel(int64 feed, const char *scope, int len);

#endif							/* POLL_KEY_H */
