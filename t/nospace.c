/*
 * A disk that is full, for t/028_limits.pl: preloaded into the server, it lets
 * files of the relations that the file $POLL_TEST_NOSPACE names not grow, for as
 * long as that file is there.  ">N" in it: those with a higher number, that is, new
 * ones.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* Is it one of the files, and would it have to grow? */
static int
is_full(int fd, off_t end)
{
	const char *flag = getenv("POLL_TEST_NOSPACE");
	char		link[64];
	char		path[PATH_MAX];
	char		word[64];
	const char *name;
	ssize_t		len;
	struct stat st;
	FILE	   *file;
	int			found = 0;

	if (flag == NULL || (file = fopen(flag, "r")) == NULL)
		return 0;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len > 0 && strncmp(path, flag, strlen(flag)) != 0)
	{
		path[len] = '\0';
		name = strrchr(path, '/');
		while (name != NULL && !found && fscanf(file, "%63s", word) == 1)
			found = word[0] != '>' ? strcmp(name + 1, word) == 0 :
				strstr(path, "/base/") != NULL && atol(name + 1) > atol(word + 1);
	}
	fclose(file);
	return found && fstat(fd, &st) == 0 && end > st.st_size;
}

ssize_t
pwrite(int fd, const void *buf, size_t count, off_t offset)
{
	static ssize_t (*next) (int, const void *, size_t, off_t);

	if (next == NULL)
		next = (ssize_t (*) (int, const void *, size_t, off_t)) dlsym(RTLD_NEXT, "pwrite");
	if (is_full(fd, offset + (off_t) count))
	{
		errno = ENOSPC;
		return -1;
	}
	return next(fd, buf, count, offset);
}

ssize_t
pwrite64(int fd, const void *buf, size_t count, off_t offset)
{
	return pwrite(fd, buf, count, offset);
}

ssize_t
pwritev(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	static ssize_t (*next) (int, const struct iovec *, int, off_t);
	off_t		end = offset;

	if (next == NULL)
		next = (ssize_t (*) (int, const struct iovec *, int, off_t)) dlsym(RTLD_NEXT, "pwritev");
	for (int i = 0; i < iovcnt; i++)
		end += (off_t) iov[i].iov_len;
	if (is_full(fd, end))
	{
		errno = ENOSPC;
		return -1;
	}
	return next(fd, iov, iovcnt, offset);
}

ssize_t
pwritev64(int fd, const struct iovec *iov, int iovcnt, off_t offset)
{
	return pwritev(fd, iov, iovcnt, offset);
}

int
posix_fallocate(int fd, off_t offset, off_t len)
{
	static int	(*next) (int, off_t, off_t);

	if (next == NULL)
		next = (int (*) (int, off_t, off_t)) dlsym(RTLD_NEXT, "posix_fallocate");
	return is_full(fd, offset + len) ? ENOSPC : next(fd, offset, len);
}

int
posix_fallocate64(int fd, off_t offset, off_t len)
{
	return posix_fallocate(fd, offset, len);
}
