/** A row's change. `Row` is what the feed's rows look like, `Key` the columns of their key. */
export type Change<Row = any, Key = any> =
	| { op: 'upsert'; key: Key; data: Row; version: number | null }
	| { op: 'delete'; key: Key; data: null; version: number | null }
	| { op: 'truncate'; key: null; data: null; version: number | null };

/** An answer of the server: what changed in the feeds, from one snapshot. */
export interface Answer {
	changes: Record<string, Change[]>;
	cursor: string;
	has_more: boolean;
	behind?: true;
	timestamp: string | null;
	feeds_checked: number;
	/** in seconds */
	poll_after: number;
}

/** Gets the changes of one feed, at least one. The cursor counts when it has resolved. */
export type Handler<Row = any, Key = any> = (changes: Change<Row, Key>[], answer: Answer) => unknown;

/** Where the cursor is kept. */
export interface Store {
	load(): string | null | undefined | Promise<string | null | undefined>;
	/** null: there is none any more */
	save(cursor: string | null): unknown;
}

/** What a poll was like. */
export interface PollInfo {
	/** of HTTP; 0: there was no answer */
	status: number;
	changes: number;
	/** of the body */
	bytes: number;
	/** of request and response, in milliseconds; with what the server has held it */
	duration: number;
	etag: string | null;
	/** the next page follows */
	more: boolean;
	error: PollError | null;
	/** until the next poll, in milliseconds */
	wait: number;
	/** the current interval, in milliseconds */
	interval: number;
}

export type State = 'stopped' | 'polling' | 'waiting' | 'paused';

interface CommonOptions {
	/** of the gateway's /poll; default "/poll". In Node it must be absolute. */
	url?: string | URL;
	/** the part of the feeds to follow */
	scope?: Record<string, string | number | boolean | null>;
	/** changes a page, 1 to 10000; default 100 */
	maxRows?: number;
	/** "now": no full sync, only what changes from now on */
	from?: 'now';
	/** milliseconds between polls; default 5000 */
	interval?: number;
	/** let the interval follow what the server says, or the changes; default false */
	adaptive?: boolean;
	/** default 1000, or the interval if that is less */
	minInterval?: number;
	/** default 60000, or the interval if that is more */
	maxInterval?: number;
	/** whole seconds that the server may hold a request until there is news, at most 25; default 0 */
	wait?: number;
	/** milliseconds for a whole answer, beyond wait; default 30000 */
	timeout?: number;
	/** do not poll while the page is hidden; default true */
	pauseHidden?: boolean;
	/** further headers, or a function that makes them for each request */
	headers?: HeadersInit | (() => HeadersInit | Promise<HeadersInit>);
	store?: Store;
	/** stops the poller */
	signal?: AbortSignal;
	/** default: the global one */
	fetch?: (url: string, init: RequestInit) => Promise<Response>;
	/** The cursor has expired: drop the copy. A full sync follows when it has resolved. */
	onReset?: () => unknown;
	/** after each poll */
	onPoll?: (poll: PollInfo) => void;
	/** default: console.error */
	onError?: (error: PollError) => void;
	onState?: (state: State) => void;
}

/** Either a handler for each feed, or a list of feeds with one handler for all. */
export type PollerOptions = CommonOptions &
	(
		| { feeds: Record<string, Handler>; onChanges?: undefined }
		| { feeds: readonly string[]; onChanges: (changes: Answer['changes'], answer: Answer) => unknown }
	);

/** Follows feeds. */
export class Poller {
	constructor(options: PollerOptions);
	/** May be changed at any time, and counts from the next poll on. */
	adaptive: boolean;
	/** The current one in milliseconds, without jitter. */
	readonly interval: number;
	readonly state: State;
	/** When it is going to poll next, as Date.now(); null while it polls or is stopped. */
	readonly nextPoll: number | null;
	/** What has been handed over; null: nothing yet. */
	readonly cursor: string | null;
	/** Begins, or goes on after stop(). */
	start(): this;
	/** Ends, also a request under way. Resolves when a handler that is running has ended: do not await it in one. */
	stop(): Promise<void>;
	/** Polls at once, though not before a Retry-After is over. */
	pollNow(): void;
}

/** Why a poll failed. */
export class PollError extends Error {
	constructor(
		message: string,
		more?: { status?: number; problem?: Record<string, any>; retryAfter?: number | null; cause?: unknown },
	);
	name: 'PollError';
	/** of HTTP; 0: there was no answer */
	status: number;
	/** the SQLSTATE, such as "PT404" */
	code: string | null;
	reason: string | null;
	hint: string | null;
	/** milliseconds */
	retryAfter: number | null;
	/** The poller has stopped, since asking again cannot help. */
	fatal: boolean;
}

/** The text under which a Mirror keeps the row with this key. */
export function keyOf(key: unknown): string;

/** Applies a feed's changes to a Map of rows by keyOf(key). */
export function applyChanges<Row, Copy extends Map<string, Row>>(map: Copy, changes: readonly Change<Row>[]): Copy;

/** A copy of a feed: a Map of rows by keyOf(key). */
export class Mirror<Row = any, Key = any> extends Map<string, Row> {
	apply(changes: readonly Change<Row, Key>[]): this;
	/** The row with this key, such as {id: 7} */
	row(key: Key): Row | undefined;
}
