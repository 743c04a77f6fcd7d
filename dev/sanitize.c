/*
 * sanitize.c
 *		Shows AddressSanitizer what palloc hands out.
 *
 * The server cuts what it allocates out of blocks, and AddressSanitizer knows
 * only the blocks.  dev/test --sanitize adds this file to the extension and has
 * the linker lead our calls here (--wrap).  What we allocate is made so large
 * that it gets a block to itself, and what was not asked for is poisoned: then
 * an access behind the end is found, and so is one after pfree(), or after the
 * context was reset, since both give the block back.
 *
 * What the server's functions allocate for us is as it always is.
 */
#include "postgres.h"

#include <sanitizer/asan_interface.h>

#include "utils/memutils.h"
#include "utils/palloc.h"

/* Above the largest limit of a context for chunks within a block */
#define OWN_BLOCK		(8 * 1024 + 64)
#define REDZONE			64

extern void *__real_palloc(Size size);
extern void *__real_palloc0(Size size);
extern void *__real_palloc_extended(Size size, int flags);
extern void *__real_MemoryContextAlloc(MemoryContext context, Size size);
extern void *__real_MemoryContextAllocZero(MemoryContext context, Size size);
extern void *__real_MemoryContextAllocZeroAligned(MemoryContext context, Size size);
extern void *__real_MemoryContextAllocExtended(MemoryContext context, Size size, int flags);
extern void *__real_MemoryContextAllocHuge(MemoryContext context, Size size);
extern void *__real_repalloc(void *pointer, Size size);
extern void *__real_repalloc_huge(void *pointer, Size size);

extern void *__wrap_palloc(Size size);
extern void *__wrap_palloc0(Size size);
extern void *__wrap_palloc_extended(Size size, int flags);
extern void *__wrap_MemoryContextAlloc(MemoryContext context, Size size);
extern void *__wrap_MemoryContextAllocZero(MemoryContext context, Size size);
extern void *__wrap_MemoryContextAllocZeroAligned(MemoryContext context, Size size);
extern void *__wrap_MemoryContextAllocExtended(MemoryContext context, Size size, int flags);
extern void *__wrap_MemoryContextAllocHuge(MemoryContext context, Size size);
extern void *__wrap_repalloc(void *pointer, Size size);
extern void *__wrap_repalloc_huge(void *pointer, Size size);

/* What to ask the server for; sizes that it refuses stay as they are. */
static Size
enlarged(Size size)
{
	if (size > MaxAllocSize - REDZONE)
		return size;
	return Max(size, OWN_BLOCK) + REDZONE;
}

static void *
poisoned(void *pointer, Size size)
{
	if (pointer != NULL)
		__asan_poison_memory_region((char *) pointer + size, enlarged(size) - size);
	return pointer;
}

void *
__wrap_palloc(Size size)
{
	return poisoned(__real_palloc(enlarged(size)), size);
}

void *
__wrap_palloc0(Size size)
{
	return poisoned(__real_palloc0(enlarged(size)), size);
}

void *
__wrap_palloc_extended(Size size, int flags)
{
	return poisoned(__real_palloc_extended(enlarged(size), flags), size);
}

void *
__wrap_MemoryContextAlloc(MemoryContext context, Size size)
{
	return poisoned(__real_MemoryContextAlloc(context, enlarged(size)), size);
}

void *
__wrap_MemoryContextAllocZero(MemoryContext context, Size size)
{
	return poisoned(__real_MemoryContextAllocZero(context, enlarged(size)), size);
}

void *
__wrap_MemoryContextAllocZeroAligned(MemoryContext context, Size size)
{
	return poisoned(__real_MemoryContextAllocZeroAligned(context, enlarged(size)), size);
}

void *
__wrap_MemoryContextAllocExtended(MemoryContext context, Size size, int flags)
{
	return poisoned(__real_MemoryContextAllocExtended(context, enlarged(size), flags), size);
}

void *
__wrap_MemoryContextAllocHuge(MemoryContext context, Size size)
{
	return poisoned(__real_MemoryContextAllocHuge(context, enlarged(size)), size);
}

/* The server moves a block of its own by realloc(), and so out of its poison. */
void *
__wrap_repalloc(void *pointer, Size size)
{
	return poisoned(__real_repalloc(pointer, enlarged(size)), size);
}

void *
__wrap_repalloc_huge(void *pointer, Size size)
{
	return poisoned(__real_repalloc_huge(pointer, enlarged(size)), size);
}
