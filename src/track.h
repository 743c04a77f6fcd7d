/*
 * track.h
 *		What track.c and ddl.c share: the triggers' names, and commands.
 */
#ifndef POLL_TRACK_H
#define POLL_TRACK_H

/* the feed's id follows */
#define POLL_CAPTURE_TRIGGER	"poll_capture_"
#define POLL_TRUNCATE_TRIGGER	"poll_truncate_"

/*
 * Runs a command through SPI; the first column of the first row it returns,
 * or 0.
 */
extern Datum poll_run(const char *sql, int nargs, Oid *types, Datum *values, const char *nulls);

/* Likewise, as the owner of the registry. */
extern Datum poll_run_as_owner(const char *sql, int nargs, Oid *types, Datum *values,
							   const char *nulls);

/*
 * Likewise for a command that changes a feed's one row; errors if an old
 * snapshot does not show that.
 */
extern void poll_change_feed(const char *sql, int nargs, Oid *types, Datum *values,
							 const char *nulls);

/* Removes it from the registry.  Within SPI. */
extern void poll_forget_feed(int64 id);

#endif							/* POLL_TRACK_H */
