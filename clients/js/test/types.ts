// What the declarations allow and what they do not: compiled, never run.

import { type Change, Mirror, PollError, Poller, type PollInfo, applyChanges, keyOf } from 'poll-ext-client';

interface Task {
	id: number;
	title: string;
}

const mirror = new Mirror<Task, { id: number }>();
const title: string | undefined = mirror.row({ id: 1 })?.title;
const map: Map<string, Task> = applyChanges(new Map<string, Task>(), [] as Change<Task>[]);
const key: string = keyOf({ id: 1 });

const poller: Poller = new Poller({
	url: new URL('http://server.test/poll'),
	feeds: {
		tasks: (changes) => mirror.apply(changes),
		rooms: async (changes: Change<{ name: string }>[], { cursor }) => {
			for (const change of changes) if (change.op === 'upsert') change.data.name.concat(cursor);
		},
	},
	scope: { room_id: 7 },
	from: 'now',
	wait: 20,
	headers: async () => ({ Authorization: 'Bearer x' }),
	store: { load: () => localStorage.getItem('cursor'), save: async (cursor) => void cursor },
	signal: AbortSignal.timeout(1000),
	fetch,
	onReset: () => mirror.clear(),
	onPoll: ({ status, wait }: PollInfo) => status + wait,
	onError: (error) => error.fatal && error.code?.startsWith('PT'),
	onState: (state) => state === 'paused',
}).start();

new Poller({ feeds: ['tasks'], onChanges: ({ tasks }) => mirror.apply(tasks) });
poller.adaptive = true;
const stopped: Promise<void> = poller.stop();
const error: Error = new PollError('no', { status: 404 });

// @ts-expect-error: feeds are needed
new Poller({});
// @ts-expect-error: onChanges is needed
new Poller({ feeds: ['tasks'] });
// @ts-expect-error: each feed has its own handler
new Poller({ feeds: { tasks: () => {} }, onChanges: () => {} });
// @ts-expect-error: a number
new Poller({ feeds: { tasks: () => {} }, interval: '5 s' });
// @ts-expect-error: a number of seconds
new Poller({ feeds: { tasks: () => {} }, wait: true });
// @ts-expect-error: no such option
new Poller({ feeds: { tasks: () => {} }, intervall: 5 });
// @ts-expect-error: it is the poller's
poller.interval = 5;
// @ts-expect-error: there is no such row
mirror.row({ name: 'x' });

export { error, key, map, stopped, title };
