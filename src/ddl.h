/*
 * ddl.h
 *		What happens to a tracked table beside its rows changing.
 */
#ifndef POLL_DDL_H
#define POLL_DDL_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

/*
 * What a feed of the table shows, as text: its columns (NIL: all) and its key
 * with their types.  While it is the same, clients understand the rows.
 */
extern char *poll_shape(Relation rel, List *columns);

/* Remembers the shape of a feed that is being tracked.  Within SPI. */
extern void poll_shape_store(int64 feed, const char *shape);

/*
 * The statement triggers of the feed on a table and its partitions.  Within
 * SPI.
 */
extern void poll_truncate_triggers_create(Oid relid, int64 feed, bool always);
extern void poll_truncate_triggers_drop(Oid relid, int64 feed);

#endif							/* POLL_DDL_H */
