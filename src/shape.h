/*
 * shape.h
 *		What a feed shows of its table, as a text to compare.
 */
#ifndef POLL_SHAPE_H
#define POLL_SHAPE_H

#include "nodes/pg_list.h"
#include "utils/relcache.h"

/* The shape of a feed of those columns (NIL = all) and that scope; palloc'd. */
extern char *poll_shape(Relation rel, List *columns, List *scope);

/* Remembers the shape of a feed that is being tracked.  Within SPI. */
extern void poll_shape_store(int64 feed, const char *shape);

/*
 * Is it another one than remembered?  Then it is from now on.  Also true if
 * none is remembered, as long as a restore has yet to load it.  Within SPI.
 */
extern bool poll_shape_changed(int64 feed, const char *shape);

#endif							/* POLL_SHAPE_H */
