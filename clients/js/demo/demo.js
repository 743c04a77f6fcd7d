// The demo page. Whatever the table shows has come by polling, also the page's own
// writes: they only ask the poller to look at once.

import { Mirror, Poller, keyOf } from '../poll.js';
import { drawChart } from './chart.js';

const $ = (id) => document.getElementById(id);
const still = matchMedia('(prefers-reduced-motion: reduce)');

// ---- tasks ----

const tasks = new Mirror();
const rows = new Map(); // keyOf(key) -> row of the table
const awaited = new Set(); // ids of tasks that were changed here, until polling brings them
let synced = false; // the table was read once

function showTask(key, task) {
	const text = keyOf(key);
	const row = rows.get(text) ?? addRow(text, task.id);
	const title = row.querySelector('.title');
	row.classList.toggle('finished', task.done);
	row.querySelector('.done').checked = task.done;
	row.querySelector('.done').ariaLabel = `Done: ${task.title}`;
	row.querySelector('.delete').ariaLabel = `Delete: ${task.title}`;
	title.ariaLabel = `Title of task ${task.id}`;
	title.title = task.title;
	if (title !== document.activeElement) title.value = task.title; // not under the fingers
	awaited.delete(task.id);
	const time = row.querySelector('time');
	time.dateTime = task.updated_at;
	time.textContent = new Date(task.updated_at).toLocaleTimeString();
	if (synced) flash(row);
}

/** The newest is on top. */
function addRow(text, id) {
	const row = $('task').content.firstElementChild.cloneNode(true);
	row.dataset.id = id;
	$('tasks').insertBefore(row, [...$('tasks').rows].find((other) => Number(other.dataset.id) < id) ?? null);
	rows.set(text, row);
	return row;
}

function dropTask(key) {
	const row = rows.get(keyOf(key));
	if (!row) return;
	const neighbour = row.nextElementSibling ?? row.previousElementSibling;
	if (row.contains(document.activeElement)) (neighbour?.querySelector('.delete') ?? $('title')).focus();
	row.remove();
	rows.delete(keyOf(key));
}

function dropAll() {
	$('tasks').replaceChildren();
	rows.clear();
}

function flash(row) {
	row.classList.remove('changed');
	void row.offsetWidth; // begins the animation anew
	row.classList.add('changed');
}

function onTasks(changes, answer) {
	tasks.apply(changes);
	for (const { op, key, data } of changes) {
		if (op === 'upsert') showTask(key, data);
		else if (op === 'delete') dropTask(key);
		else dropAll();
	}
	if (synced) $('news').textContent = changes.length === 1 ? 'One task changed' : `${changes.length} tasks changed`;
	synced ||= !answer.has_more;
}

// ---- writing ----

async function call(name, task) {
	const headers = { 'Content-Type': 'application/json' };
	const response = await fetch(`../rpc/${name}`, { method: 'POST', headers, body: JSON.stringify(task) });
	if (response.ok) return;
	const problem = await response.json().catch(() => ({}));
	throw new Error(problem.detail ?? `the answer has status ${response.status}`);
}

/** Returns whether it went well; if not, says why. */
async function write(name, task) {
	try {
		await call(name, task);
		if (poller.state === 'stopped') notify('wait', 'Saved. It will show when polling resumes.');
		return true;
	} catch (error) {
		notify('failed', `Not saved: ${error.message}.`);
		return false;
	} finally {
		poller.pollNow();
	}
}

let adding = false;

$('add').addEventListener('submit', async (event) => {
	event.preventDefault();
	if (adding) return;
	adding = true;
	const title = $('title').value;
	if ((await write('save_task', { title })) && $('title').value === title) $('title').value = '';
	adding = false;
});

const idOf = (element) => Number(element.closest('tr').dataset.id);

/** Shows a task again as it is, after a write that failed */
function restore(id) {
	if (tasks.row({ id })) showTask({ id }, tasks.row({ id }));
}

$('tasks').addEventListener('change', async ({ target }) => {
	const id = idOf(target);
	const task = target.matches('.done') ? { id, done: target.checked } : { id, title: target.value };
	awaited.add(id);
	if (!(await write('save_task', task))) restore(id);
});

/** Shows a title that has changed meanwhile. After an edit, "change" comes first. */
$('tasks').addEventListener('focusout', ({ target }) => {
	if (target.matches('.title') && !awaited.has(idOf(target))) target.value = target.title;
});

$('tasks').addEventListener('click', ({ target }) => {
	if (target.closest('.delete')) write('delete_task', { id: idOf(target) });
});

$('tasks').addEventListener('keydown', ({ target, key }) => {
	if (!target.matches('.title')) return;
	if (key === 'Enter') target.blur();
	else if (key === 'Escape') target.value = target.title;
});

/** Changes random tasks, without telling the poller. */
async function makeNoise() {
	for (const end = Date.now() + 5000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 150))) {
		const all = [...tasks.values()];
		const task = all[Math.floor(Math.random() * all.length)];
		await call('save_task', task ? { id: task.id, done: !task.done } : { title: 'Noise' });
	}
}

/** Uses up the quota. It takes requests without a tag, since a 304 costs nothing. */
async function askTooOften() {
	for (let count = 0; count < 1000; count++)
		if (!(await fetch('../poll?feeds=tasks&cursor=now', { cache: 'no-store' })).ok) break;
	poller.pollNow();
}

for (const [id, work] of Object.entries({ noise: makeNoise, hurry: askTooOften }))
	$(id).addEventListener('click', async () => {
		$(id).disabled = true;
		await work().catch((error) => notify('failed', `"${$(id).textContent}" has failed: ${error.message}.`));
		$(id).disabled = false;
	});

// ---- what polling does ----

const counts = { ok: 0, same: 0, limited: 0, failed: 0 };
const sizes = new Map(); // entity tag -> bytes of its body
const polls = []; // of the last minutes, for the chart
let received = 0;
let saved = 0;

const kinds = { 200: 'ok', 304: 'same', 429: 'limited' };
const number = new Intl.NumberFormat('en');
const bytes = (count) => `${number.format(count)} bytes`;

function onPoll(poll) {
	const kind = kinds[poll.status] ?? 'failed';
	counts[kind]++;
	received += poll.bytes;
	if (poll.status === 200 && poll.etag) sizes.set(poll.etag, poll.bytes);
	if (poll.status === 304) saved += sizes.get(poll.etag) ?? 0;
	polls.push({ time: Date.now(), interval: poll.interval, kind });
	if (kind === 'ok' || kind === 'same') {
		synced ||= !poll.more;
		trouble = null;
	} else if (poll.status !== 410) trouble = troubleOf(poll);
	show();
}

function onReset() {
	tasks.clear();
	dropAll();
	synced = false;
	notify('wait', 'The cursor had expired: the copy was dropped, and the table is read again.');
}

function troubleOf({ status, error }) {
	const { message, reason } = error;
	if (error.fatal) {
		const text = ['Polling has stopped:', `${message}.`, reason, 'Resume tries again.'].filter(Boolean).join(' ');
		return { pill: 'stopped', state: 'failed', text };
	}
	if (status === 429) return { pill: 'rate limited', state: 'limited', text: 'Too many requests.' };
	if (status === 0) return { pill: 'offline', state: 'failed', text: 'Offline: the server does not answer.' };
	return { pill: 'error', state: 'failed', text: `The server has a problem: ${message}.` };
}

const poller = new Poller({
	url: '../poll',
	feeds: { tasks: onTasks },
	interval: 2000,
	minInterval: 1000,
	maxInterval: 5000,
	adaptive: true,
	timeout: 10000,
	onReset,
	onPoll,
	onError: () => {}, // onPoll shows them
	onState: show,
});

// ---- notices ----

let trouble = null; // why polling does not work: { pill, state, text }
let message = null; // what is said for a time: { state, text }
let messageTimer;

function notify(state, text) {
	say({ state, text });
	clearTimeout(messageTimer);
	messageTimer = setTimeout(say, 6000, null);
}

function say(what) {
	message = what;
	showNotice();
}

/** A message, and what the trouble is, if there is any */
function showNotice() {
	const notices = [message, trouble].filter(Boolean);
	const text = notices.map((notice) => notice.text).join(' ');
	$('notice').hidden = !text;
	if (text) $('notice').dataset.state = notices[0].state;
	if ($('notice-text').textContent !== text) $('notice-text').textContent = text; // it is read out
}

// ---- showing ----

function inSeconds(time) {
	return `${(time / 1000).toFixed(still.matches ? 0 : 1)} s`;
}

function show() {
	const stopped = poller.state === 'stopped';
	const { pill, state } = trouble ?? (stopped ? { pill: 'paused', state: 'wait' } : { pill: 'live', state: 'live' });
	$('state').textContent = pill;
	$('state').dataset.state = state;
	$('pause').textContent = stopped ? 'Resume' : 'Pause';
	$('now').disabled = stopped;
	$('interval').textContent = `interval ${(poller.interval / 1000).toFixed(2)} s`;
	$('count').textContent = synced ? tasks.size : '';
	$('none').hidden = !synced || tasks.size > 0;
	for (const [kind, count] of Object.entries(counts)) $(kind).textContent = number.format(count);
	$('received').textContent = bytes(received);
	$('saved').textContent = bytes(saved);
	showNotice();
	showCountdown();
	drawChart($('chart'), polls);
}

function showCountdown() {
	const left = poller.nextPoll === null ? 0 : Math.max(poller.nextPoll - Date.now(), 0);
	const waiting = poller.state === 'waiting';
	$('next').textContent = waiting ? `next poll in ${inSeconds(left)}` : poller.state;
	$('notice-time').textContent = trouble && waiting ? `Next try in ${inSeconds(left)}.` : '';
	$('bar').style.transform = `scaleX(${waiting ? Math.min(left / poller.interval, 1) : 0})`;
}

$('now').addEventListener('click', () => poller.pollNow());
$('pause').addEventListener('click', () => {
	if (poller.state === 'stopped') poller.start();
	else poller.stop();
	trouble = message = null;
	show();
});
for (const mode of document.querySelectorAll('[name=mode]'))
	mode.addEventListener('change', () => (poller.adaptive = mode.value === 'adaptive'));

poller.adaptive = document.querySelector('[name=mode]:checked').value === 'adaptive';
poller.start();
setInterval(showCountdown, still.matches ? 1000 : 100);
setInterval(() => drawChart($('chart'), polls), 1000);
