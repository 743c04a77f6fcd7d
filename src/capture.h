/*
 * capture.h
 *		The row trigger, and its buffers.
 */
#ifndef POLL_CAPTURE_H
#define POLL_CAPTURE_H

/* Called by _PG_init(): registers the transaction callbacks. */
extern void poll_capture_install(void);

/* Called by the relcache callback. */
extern void poll_capture_invalidate(Oid relid);

#endif							/* POLL_CAPTURE_H */
