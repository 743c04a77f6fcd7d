/*
 * digest.c
 *		Hashes of values, that depend on what they are and on nothing else.
 *
 * Two values of a type have the same hash if they are the same: whatever
 * TimeZone, DateStyle, extra_float_digits, client_encoding and so on are, and
 * however the values are stored (compressed, out of line, packed).  So output
 * functions are of no use, and neither are send functions, which convert texts.
 * It is the bytes in memory that are hashed, without their wrapping: what is
 * made of parts (rows, arrays, ranges) is taken apart first.  A jsonb is walked
 * through, since equal ones may hold 1.0 and 1.00.
 *
 * Each part is preceded by its kind and, if that leaves it open, its length, so
 * that no two different values have the same sequence of bytes.
 *
 * The hash is SHA-256 by the server's own library, cut to 128 bits: nobody can
 * make up two contents with the same hash, which of MD5 is not true any more.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_enum.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/multirangetypes.h"
#include "utils/numeric.h"
#include "utils/rangetypes.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "digest.h"

/*
 * Parts are gathered up to that size.  Then the hash of what came before is
 * what the next hash begins with; the first one begins with zeros, so that no
 * content can pass for the rest of another one.  (A hash under way could not
 * outlive a call: it belongs to a resource owner.)
 */
#define BUFFER_SIZE		8192

void
poll_digest_begin(PollDigest *digest)
{
	memset(digest->chain, 0, sizeof(digest->chain));
	initStringInfo(&digest->buffer);
}

/* The hash of all so far, and more bytes. */
static void
compute(const PollDigest *digest, const void *data, Size length, uint8 *result)
{
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);

	if (context == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));
	if (pg_cryptohash_init(context) < 0 ||
		pg_cryptohash_update(context, digest->chain, sizeof(digest->chain)) < 0 ||
		pg_cryptohash_update(context, (uint8 *) digest->buffer.data, digest->buffer.len) < 0 ||
		pg_cryptohash_update(context, data, length) < 0 ||
		pg_cryptohash_final(context, result, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute a hash: %s", pg_cryptohash_error(context));
	pg_cryptohash_free(context);
}

void
poll_digest_add(PollDigest *digest, const void *data, Size length)
{
	if (digest->buffer.len + length <= BUFFER_SIZE)
	{
		appendBinaryStringInfo(&digest->buffer, data, length);
		return;
	}
	compute(digest, data, length, digest->chain);
	resetStringInfo(&digest->buffer);
}

void
poll_digest_result(const PollDigest *digest, uint8 result[POLL_DIGEST_LENGTH])
{
	uint8		whole[PG_SHA256_DIGEST_LENGTH];

	compute(digest, NULL, 0, whole);
	memcpy(result, whole, POLL_DIGEST_LENGTH);
}

static void
add_kind(PollDigest *digest, char kind)
{
	poll_digest_add(digest, &kind, 1);
}

static void
add_number(PollDigest *digest, int32 number)
{
	poll_digest_add(digest, &number, sizeof(number));
}

static void
add_bytes(PollDigest *digest, char kind, const void *data, int32 length)
{
	add_kind(digest, kind);
	add_number(digest, length);
	poll_digest_add(digest, data, length);
}

void
poll_digest_add_text(PollDigest *digest, const text *value)
{
	int32		length = value != NULL ? VARSIZE_ANY_EXHDR(value) : -1;

	add_number(digest, length);
	if (value != NULL)
		poll_digest_add(digest, VARDATA_ANY(value), length);
}

/* ---- jsonb ---- */

static void
add_json_scalar(PollDigest *digest, const JsonbValue *value)
{
	char	   *number;

	switch (value->type)
	{
		case jbvNull:
			add_kind(digest, '0');
			break;
		case jbvBool:
			add_kind(digest, value->val.boolean ? 't' : 'f');
			break;
		case jbvString:
			add_bytes(digest, 's', value->val.string.val, value->val.string.len);
			break;
		case jbvNumeric:
			number = numeric_normalize(value->val.numeric);
			add_bytes(digest, 'n', number, strlen(number));
			pfree(number);
			break;
		default:
			elog(ERROR, "unexpected jsonb value of type %d", (int) value->type);
	}
}

/* Keys are unique and in order. */
static void
add_jsonb(PollDigest *digest, Jsonb *jsonb)
{
	JsonbIterator *iterator = JsonbIteratorInit(&jsonb->root);
	JsonbIteratorToken token;
	JsonbValue	value;

	while ((token = JsonbIteratorNext(&iterator, &value, false)) != WJB_DONE)
	{
		CHECK_FOR_INTERRUPTS();
		switch (token)
		{
			case WJB_BEGIN_ARRAY:
				add_kind(digest, value.val.array.rawScalar ? '-' : '[');
				break;
			case WJB_BEGIN_OBJECT:
				add_kind(digest, '{');
				break;
			case WJB_END_ARRAY:
			case WJB_END_OBJECT:
				add_kind(digest, ']');
				break;
			default:
				add_json_scalar(digest, &value);
		}
	}
}

/* ---- other types ---- */

/* Types of the server have the same OID everywhere. */
static void
add_type(PollDigest *digest, Oid type)
{
	char	   *name;

	add_number(digest, type < FirstNormalObjectId ? type : 0);
	if (type < FirstNormalObjectId)
		return;
	name = format_type_be(type);
	add_bytes(digest, 'y', name, strlen(name));
	pfree(name);
}

static void
add_names(PollDigest *digest, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		add_bytes(digest, 'k', NameStr(attribute->attname), strlen(NameStr(attribute->attname)));
		add_type(digest, attribute->atttypid);
	}
}

static void add_value(PollDigest *digest, Oid typid, Datum value, bool nested);

static void
add_row(PollDigest *digest, HeapTupleHeader row, bool nested)
{
	TupleDesc	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row),
											  HeapTupleHeaderGetTypMod(row));
	Datum	   *values = palloc(desc->natts * sizeof(Datum));
	bool	   *nulls = palloc(desc->natts * sizeof(bool));
	HeapTupleData tuple;

	tuple.t_len = HeapTupleHeaderGetDatumLength(row);
	tuple.t_data = row;
	heap_deform_tuple(&tuple, desc, values, nulls);
	add_kind(digest, '(');
	if (nested)
		add_names(digest, desc);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		if (nulls[i])
			add_kind(digest, '0');
		else
			add_value(digest, attribute->atttypid, values[i], true);
	}
	add_kind(digest, ')');
	pfree(values);
	pfree(nulls);
	ReleaseTupleDesc(desc);
}

static void
add_array(PollDigest *digest, ArrayType *array, Oid element)
{
	int			n;
	Datum	   *values;
	bool	   *nulls;
	int16		length;
	bool		by_value;
	char		align;

	get_typlenbyvalalign(element, &length, &by_value, &align);
	deconstruct_array(array, element, length, by_value, align, &values, &nulls, &n);
	add_kind(digest, 'a');
	add_number(digest, ARR_NDIM(array));
	poll_digest_add(digest, ARR_DIMS(array), ARR_NDIM(array) * sizeof(int));
	poll_digest_add(digest, ARR_LBOUND(array), ARR_NDIM(array) * sizeof(int));
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (nulls[i])
			add_kind(digest, '0');
		else
			add_value(digest, element, values[i], true);
	}
	pfree(values);
	pfree(nulls);
}

static void
add_bound(PollDigest *digest, Oid element, const RangeBound *bound)
{
	char		flags[2] = {bound->infinite, bound->inclusive};

	poll_digest_add(digest, flags, sizeof(flags));
	if (!bound->infinite)
		add_value(digest, element, bound->val, true);
}

static void
add_range(PollDigest *digest, TypeCacheEntry *type, const RangeType *range)
{
	RangeBound	lower;
	RangeBound	upper;
	bool		empty;

	range_deserialize(type, range, &lower, &upper, &empty);
	add_kind(digest, empty ? 'e' : 'r');
	if (empty)
		return;
	add_bound(digest, type->rngelemtype->type_id, &lower);
	add_bound(digest, type->rngelemtype->type_id, &upper);
}

static void
add_multirange(PollDigest *digest, TypeCacheEntry *type, MultirangeType *multirange)
{
	int32		n;
	RangeType **ranges;

	multirange_deserialize(type->rngtype, multirange, &n, &ranges);
	add_kind(digest, 'm');
	add_number(digest, n);
	for (int i = 0; i < n; i++)
		add_range(digest, type->rngtype, ranges[i]);
}

/* By its label: its OID is another one after a restore. */
static void
add_enum(PollDigest *digest, Datum value)
{
	HeapTuple	tuple = SearchSysCache1(ENUMOID, value);
	const char *label;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for enum %u", DatumGetObjectId(value));
	label = NameStr(((Form_pg_enum) GETSTRUCT(tuple))->enumlabel);
	add_bytes(digest, 'l', label, strlen(label));
	ReleaseSysCache(tuple);
}

/* A value that is made of nothing else. */
static void
add_atom(PollDigest *digest, TypeCacheEntry *type, Datum value)
{
	if (type->typbyval)
	{
		Datum		stored = 0;

		store_att_byval(&stored, value, type->typlen);
		add_kind(digest, 'd');
		poll_digest_add(digest, &stored, sizeof(stored));
	}
	else if (type->typlen == -1)
	{
		struct varlena *bytes = PG_DETOAST_DATUM_PACKED(value);

		add_bytes(digest, 'v', VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes));
		if ((Pointer) bytes != DatumGetPointer(value))
			pfree(bytes);
	}
	else if (type->typlen == -2)
		add_bytes(digest, 'c', DatumGetCString(value), strlen(DatumGetCString(value)));
	else
		add_bytes(digest, 'f', DatumGetPointer(value), type->typlen);
}

static void
add_value(PollDigest *digest, Oid typid, Datum value, bool nested)
{
	TypeCacheEntry *type = lookup_type_cache(typid, TYPECACHE_DOMAIN_BASE_INFO |
											 TYPECACHE_RANGE_INFO | TYPECACHE_MULTIRANGE_INFO);
	Oid			element;

	check_stack_depth();
	if (type->typtype == TYPTYPE_DOMAIN)
		add_value(digest, type->domainBaseType, value, nested);
	else if (typid == JSONBOID)
	{
		Jsonb	   *jsonb = DatumGetJsonbP(value);

		add_jsonb(digest, jsonb);
		if ((Pointer) jsonb != DatumGetPointer(value))
			pfree(jsonb);
	}
	else if (type->typtype == TYPTYPE_COMPOSITE || typid == RECORDOID)
		add_row(digest, DatumGetHeapTupleHeader(value), nested);
	else if (type->typtype == TYPTYPE_RANGE)
		add_range(digest, type, DatumGetRangeTypeP(value));
	else if (type->typtype == TYPTYPE_MULTIRANGE)
		add_multirange(digest, type, DatumGetMultirangeTypeP(value));
	else if (type->typtype == TYPTYPE_ENUM)
		add_enum(digest, value);
	else if (OidIsValid(element = get_element_type(typid)))
		add_array(digest, DatumGetArrayTypeP(value), element);
	else
		add_atom(digest, type, value);
}

void
poll_digest_add_value(PollDigest *digest, Oid typid, Datum value)
{
	add_value(digest, typid, value, false);
}

void
poll_digest_add_names(PollDigest *digest, Oid typid, Datum value)
{
	TupleDesc	desc;
	HeapTupleHeader row;

	typid = getBaseType(typid);
	if (!type_is_rowtype(typid))
		return;
	row = DatumGetHeapTupleHeader(value);
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row), HeapTupleHeaderGetTypMod(row));
	add_names(digest, desc);
	ReleaseTupleDesc(desc);
}
