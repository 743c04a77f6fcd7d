/*
 * xids.h
 *		Transaction ids as SQL has them: xid8 and xid8[].
 */
#ifndef POLL_XIDS_H
#define POLL_XIDS_H

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/xid8.h"

static inline Datum
poll_xid_datum(uint64 xid)
{
	return FullTransactionIdGetDatum(FullTransactionIdFromU64(xid));
}

static inline uint64
poll_xid_value(Datum value)
{
	return U64FromFullTransactionId(DatumGetFullTransactionId(value));
}

/* The first n as an array, palloc'd. */
static inline Datum
poll_xids_datum(const uint64 *xids, int n)
{
	Datum	   *elements = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		elements[i] = poll_xid_datum(xids[i]);
	return PointerGetDatum(construct_array(elements, n, XID8OID, sizeof(uint64),
										   FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* And back; the result is palloc'd. */
static inline uint64 *
poll_xids_value(Datum value, int *n)
{
	Datum	   *elements;
	uint64	   *xids;

	deconstruct_array(DatumGetArrayTypeP(value), XID8OID, sizeof(uint64), FLOAT8PASSBYVAL,
					  TYPALIGN_DOUBLE, &elements, NULL, n);
	xids = palloc(sizeof(uint64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		xids[i] = poll_xid_value(elements[i]);
	return xids;
}

#endif							/* POLL_XIDS_H */
