/*
 * plan.h
 *		The queries that read a tracked table, and their plans.
 */
#ifndef POLL_PLAN_H
#define POLL_PLAN_H

#include "executor/spi.h"

#include "key.h"

/* What the queries read. */
typedef struct PollSource
{
	Oid			relid;
	char	   *name;			/* qualified and quoted */
	bool		only;			/* read the table without its children */
	char	   *columns;		/* the select list, each with a comma behind */
	PollKey    *key;
	PollKey    *scope;			/* NULL = none */
} PollSource;

/*
 * The element type of the array in which poll_plan_lookup() takes a column of
 * the key: its own, or text.
 */
extern Oid	poll_plan_element(const PollKeyColumn *column);

/*
 * Prepare, in an SPI connection, plans that the caller frees.  Lookup: arrays
 * of key columns -> the columns and the key's place in the arrays, from 1.
 * Scan: key columns if after, a limit, and the values of the scope that are
 * not null -> the columns and a constant.
 */
extern SPIPlanPtr poll_plan_lookup(const PollSource *source);
extern SPIPlanPtr poll_plan_scan(const PollSource *source, bool after, uint64 scope_nulls);

/*
 * Runs one under the active snapshot.  allow: a planner setting that stays as
 * it is, or NULL.
 */
extern void poll_plan_run(const PollSource *source, SPIPlanPtr plan, const char *allow,
						  int nargs, const Datum *values, const Oid *types, DestReceiver *dest);

#endif							/* POLL_PLAN_H */
