/*
 * files.c
 *		Static files: a page, its script and its pictures.
 *
 * They are read once, at the start, and then looked up by their path. Whatever a
 * client asks for, no other file can be had. Names that begin with a dot, and
 * node_modules, are left out.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "files.h"
#include "log.h"

#define MAX_TOTAL	(64 * 1024 * 1024)	/* bytes */
#define MAX_DEPTH	16
#define INDEX		"index.html"

typedef struct File
{
	char	   *path;			/* in URLs: begins with a slash */
	char	   *content;		/* NULL: a folder, whose path needs a slash */
	size_t		size;
	const char *type;
	char		tag[32];
} File;

static File *files;
static int	file_count;
static size_t total;

static const char *
type_of(const char *path)
{
	static const char *const types[][2] = {
		{".html", "text/html; charset=utf-8"},
		{".js", "text/javascript; charset=utf-8"},
		{".mjs", "text/javascript; charset=utf-8"},
		{".css", "text/css; charset=utf-8"},
		{".json", "application/json"},
		{".webmanifest", "application/manifest+json"},
		{".svg", "image/svg+xml"},
		{".png", "image/png"},
		{".jpg", "image/jpeg"},
		{".ico", "image/x-icon"},
		{".woff2", "font/woff2"},
		{".txt", "text/plain; charset=utf-8"},
		{".md", "text/plain; charset=utf-8"},
		{".ts", "text/plain; charset=utf-8"}
	};
	size_t		length = strlen(path);

	for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++)
	{
		size_t		suffix = strlen(types[i][0]);

		if (length > suffix && strcmp(path + length - suffix, types[i][0]) == 0)
			return types[i][1];
	}
	return "application/octet-stream";
}

static void *
allocated(void *memory)
{
	if (memory == NULL)
		die("out of memory");
	return memory;
}

static File *
add_file(char *path)
{
	if ((file_count & (file_count - 1)) == 0)	/* a power of two: double it */
		files = allocated(realloc(files, (file_count ? file_count * 2 : 1) * sizeof(File)));
	files[file_count] = (File)
	{
		.path = path
	};
	return &files[file_count++];
}

/* FNV-1a, to see that a file is another one after a restart */
static void
make_tag(File *file)
{
	uint64_t	hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < file->size; i++)
		hash = (hash ^ (unsigned char) file->content[i]) * UINT64_C(0x100000001b3);
	snprintf(file->tag, sizeof(file->tag), "\"%016llx\"", (unsigned long long) hash);
}

static char *
join(const char *a, const char *b, const char *c)
{
	char	   *result = allocated(malloc(strlen(a) + strlen(b) + strlen(c) + 1));

	strcpy(result, a);
	strcat(result, b);
	strcat(result, c);
	return result;
}

static void
read_file(const char *name, char *path, size_t size)
{
	FILE	   *in = fopen(name, "rb");
	File	   *file = add_file(path);

	total += size;
	if (total > MAX_TOTAL)
		die("there are more than %d MB of files: leave them to a web server", MAX_TOTAL / 1024 / 1024);
	file->content = allocated(malloc(size + 1));
	if (in == NULL || fread(file->content, 1, size, in) != size)
		die("cannot read %s: %m", name);
	fclose(in);
	file->size = size;
	file->type = type_of(path);
	make_tag(file);
}

/* path: that of the folder in URLs, with a slash at the end */
static void
read_folder(const char *folder, const char *path, int depth)
{
	DIR		   *dir = opendir(folder);
	struct dirent *entry;

	if (dir == NULL)
		die("cannot read the folder %s: %m", folder);
	if (depth > MAX_DEPTH)
		die("the folder %s is too deep", folder);
	while ((entry = readdir(dir)) != NULL)
	{
		char	   *name = join(folder, "/", entry->d_name);
		struct stat info;

		if (entry->d_name[0] == '.' || strcmp(entry->d_name, "node_modules") == 0 || stat(name, &info) != 0)
			;
		else if (S_ISDIR(info.st_mode))
		{
			char	   *inner = join(path, entry->d_name, "/");

			add_file(join(path, entry->d_name, ""));
			read_folder(name, inner, depth + 1);
			free(inner);
		}
		else if (S_ISREG(info.st_mode))
		{
			read_file(name, join(path, entry->d_name, ""), info.st_size);
			if (strcmp(entry->d_name, INDEX) == 0)
			{
				File		file = files[file_count - 1];
				File	   *index = add_file(join(path, "", ""));

				file.path = index->path;
				*index = file;
			}
		}
		free(name);
	}
	closedir(dir);
}

static int
compare_paths(const void *a, const void *b)
{
	return strcmp(((const File *) a)->path, ((const File *) b)->path);
}

void
files_read(const char *folder)
{
	read_folder(folder, "/", 0);
	qsort(files, file_count, sizeof(File), compare_paths);
}

bool
files_answer(const char *path, const char *if_none_match, Answer *answer)
{
	File		key = {.path = (char *) path};
	const File *file = file_count ? bsearch(&key, files, file_count, sizeof(File), compare_paths) : NULL;

	if (file == NULL)
		return false;
	if (file->content == NULL)
	{
		char	   *location = join(strrchr(file->path, '/') + 1, "/", "");

		*answer = answer_text(MHD_HTTP_MOVED_PERMANENTLY, "text/plain", "");
		answer_header(answer, MHD_HTTP_HEADER_LOCATION, location);
		free(location);
		return true;
	}
	if (if_none_match != NULL && strstr(if_none_match, file->tag) != NULL)
		*answer = answer_static(MHD_HTTP_NOT_MODIFIED, file->type, "", 0);
	else
		*answer = answer_static(MHD_HTTP_OK, file->type, file->content, file->size);
	answer_header(answer, MHD_HTTP_HEADER_ETAG, file->tag);
	answer_header(answer, MHD_HTTP_HEADER_CACHE_CONTROL, "no-cache");
	answer_header(answer, MHD_HTTP_HEADER_X_CONTENT_TYPE_OPTIONS, "nosniff");
	answer_header(answer, MHD_HTTP_HEADER_CONTENT_SECURITY_POLICY, "default-src 'self'");
	return true;
}
