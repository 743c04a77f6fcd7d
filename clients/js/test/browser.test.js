// The demo page, and the poller, in Chromium

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { chromium } from 'playwright-core';
import { Database, Gateway, browserOptions, until } from './lib.js';

const pictures = process.env.PICTURES; // a folder for screenshots, if wanted

let database;
let gateway;
let browser;
let contexts = [];
let complaints; // of pages: errors, requests to others

before(async () => {
	database = await Database.create('browser');
	gateway = await Gateway.start(database.name);
	browser = await chromium.launch(browserOptions);
	if (pictures) await mkdir(pictures, { recursive: true });
});

after(async () => {
	await browser?.close();
	await gateway?.stop();
	await database?.drop();
});

beforeEach(async () => {
	complaints = [];
	await database.sql('DELETE FROM tasks');
});

afterEach(async () => {
	await Promise.all(contexts.map((context) => context.close()));
	contexts = [];
	assert.deepEqual(complaints, []);
});

/** A page in a context of its own. That an answer is an error is for the test to judge. */
async function openPage(url = '/demo/', options = {}) {
	const context = await browser.newContext(options);
	const page = await context.newPage();
	contexts.push(context);
	page.setDefaultTimeout(10000);
	page.on('pageerror', (error) => complaints.push(error.message));
	page.on('console', (message) => {
		if (['error', 'warning'].includes(message.type()) && !/^Failed to load resource/.test(message.text()))
			complaints.push(message.text());
	});
	page.on('request', (request) => {
		if (!request.url().startsWith('http://127.0.0.1:')) complaints.push(request.url());
	});
	await page.goto(gateway.base + url);
	return page;
}

const live = (page) => page.locator('#state', { hasText: 'live' }).waitFor();
const notice = (page, text) => page.locator('#notice', { hasText: text }).waitFor();
const titles = (page) => page.locator('#tasks .title').evaluateAll((inputs) => inputs.map(({ value }) => value));
const save = (task) => gateway.call('save_task', task);

async function picture(page, name) {
	if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
}

test('what one page writes comes to the other', async () => {
	const [one, two] = await Promise.all([openPage(), openPage()]);
	await Promise.all([live(one), live(two)]);

	await one.fill('#title', '<b>bread</b> & "milk"');
	await one.click('text=Add');
	await until('the row is in both', async () => (await titles(one)).length + (await titles(two)).length === 2);
	assert.deepEqual(await titles(two), ['<b>bread</b> & "milk"']);
	assert.equal(await two.locator('#tasks b').count(), 0);
	assert.equal(await one.inputValue('#title'), '');
	await two.locator('tr.changed').waitFor();
	await picture(two, 'changed');

	await two.check('.done');
	await one.locator('tr.finished .done:checked').waitFor();
	await one.fill('.title', 'butter');
	await one.press('.title', 'Enter');
	await until('the title is in both', async () => (await titles(two))[0] === 'butter');
	await two.click('.delete');
	await one.locator('#none:visible').waitFor();
	assert.deepEqual(await titles(one), []);
});

test('the root leads to the page', async () => {
	await live(await openPage('/'));
});

test('a title that is being edited is not changed under the fingers', async () => {
	const { id } = await save({ title: 'mine' });
	const page = await openPage();
	await page.fill('#tasks .title', 'half of a new tit');
	await save({ id, done: true });
	await page.locator('tr.finished').waitFor();
	assert.deepEqual(await titles(page), ['half of a new tit']);
	await page.press('#tasks .title', 'Escape');
	assert.deepEqual(await titles(page), ['mine']);
});

test('a title that has changed meanwhile is shown when it is left', async () => {
	const { id } = await save({ title: 'old' });
	const page = await openPage();
	await page.focus('#tasks .title');
	await save({ id, title: 'new' });
	await page.locator('#tasks .title[title=new]').waitFor();
	assert.deepEqual(await titles(page), ['old']);
	await page.focus('#title');
	assert.deepEqual(await titles(page), ['new']);
	await page.fill('#tasks .title', 'newer');
	await page.focus('#title');
	assert.deepEqual(await titles(page), ['newer']);
});

test('a task is added once, and what is typed meanwhile stays', async () => {
	const page = await openPage();
	await live(page);
	let answer;
	const held = new Promise((resolve) => (answer = resolve));
	await page.route('**/rpc/save_task', (route) => held.then(() => route.continue()));
	await page.fill('#title', 'once');
	for (let i = 0; i < 3; i++) await page.click('text=Add');
	await page.fill('#title', 'the next');
	answer();
	await until('the row is there', async () => (await titles(page)).length > 0);
	assert.equal(await page.inputValue('#title'), 'the next');
	await page.click('text=Add');
	await until('both are there', async () => (await titles(page)).join() === 'the next,once');
	await until('the field is empty', async () => (await page.inputValue('#title')) === '');
});

test('what the server refuses is said, and undone', async () => {
	await save({ title: 'as it is' });
	const page = await openPage();
	await page.fill('#tasks .title', '   ');
	await page.press('#tasks .title', 'Enter');
	await notice(page, 'Not saved: a task needs a title.');
	assert.deepEqual(await titles(page), ['as it is']);
});

test('the keyboard is enough', async () => {
	await save({ title: 'second' });
	await save({ title: 'first' });
	const page = await openPage();
	await until('the rows are there', async () => (await titles(page)).length === 2);
	const tab = async (times = 1) => {
		for (let i = 0; i < times; i++) await page.keyboard.press('Tab');
	};
	const focused = () => page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.id);

	await tab();
	await page.keyboard.type('by keyboard');
	await page.keyboard.press('Enter');
	await until('it was added', async () => (await titles(page))[0] === 'by keyboard');
	await tab(2);
	assert.equal(await focused(), 'Done: by keyboard');
	await page.keyboard.press('Space');
	await page.locator('tr.finished').waitFor();
	await tab(2);
	assert.equal(await focused(), 'Delete: by keyboard');
	const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
	assert.equal(outline, 'solid');
	await page.keyboard.press('Enter');
	await until('it was deleted', async () => (await titles(page)).length === 2);
	assert.equal(await focused(), 'Delete: first');
	await tab(4);
	assert.equal(await page.evaluate(() => document.activeElement.value), 'adaptive');
	await page.keyboard.press('ArrowLeft');
	assert.equal(await page.isChecked('[value=fixed]'), true);
	await tab();
	assert.equal(await focused(), 'now');
	await tab();
	await page.keyboard.press('Enter');
	await page.locator('#state', { hasText: 'paused' }).waitFor();
});

test('too many requests: a countdown, and then it goes on', async (t) => {
	await database.sql("SELECT poll.set_rate_policy('poll', quota => 30, per => '1 minute', algorithm => 'gcra', burst => 10)");
	t.after(() => database.sql("SELECT poll.drop_rate_policy('poll')"));
	const page = await openPage();
	await live(page);
	await page.click('#hurry');
	await notice(page, /Too many requests\. Next try in \d+\.\d s\./);
	await page.locator('#state', { hasText: 'rate limited' }).waitFor();
	await picture(page, 'limited');
	assert.notEqual(await page.textContent('#limited'), '0');
	await live(page);
	await page.locator('#notice').waitFor({ state: 'hidden' });
	await save({ title: 'after it' });
	await until('the row is there', async () => (await titles(page)).length === 1);
});

test('an expired cursor: the page says so, and reads the table again', async () => {
	await save({ title: 'stays' });
	await save({ title: 'goes' });
	const page = await openPage();
	await until('the rows are there', async () => (await titles(page)).length === 2);
	await database.sql(
		"BEGIN; SELECT poll.untrack('tasks'); DELETE FROM tasks WHERE title = 'goes'; SELECT poll.track('tasks'); COMMIT",
	);
	await notice(page, 'The cursor had expired');
	await until('the table was read again', async () => (await titles(page)).join() === 'stays');
	await picture(page, 'expired');
});

test('the server goes away and comes back', async () => {
	const page = await openPage();
	await live(page);
	await gateway.stop();
	await notice(page, 'Offline: the server does not answer.');
	await page.locator('#state', { hasText: 'offline' }).waitFor();
	await page.locator('#notice', { hasText: /Next try in/ }).waitFor();
	await picture(page, 'offline');
	await page.fill('#title', 'lost');
	await page.click('text=Add');
	await notice(page, /Not saved: .*Offline: /);
	assert.equal(await page.inputValue('#title'), 'lost');
	await page.click('#hurry');
	await notice(page, '"Ask too often" has failed: ');
	gateway = await Gateway.start(database.name, gateway.port);
	await page.click('#now');
	await live(page);
	await save({ title: 'after it' });
	await page.click('#now');
	await until('the row is there', async () => (await titles(page)).length === 1);
});

test('the database goes away: it is not the page that is offline', async () => {
	const page = await openPage();
	await live(page);
	await database.allowConnections(false);
	try {
		await notice(page, 'The server has a problem: ');
		await page.locator('#state', { hasText: 'error' }).waitFor();
	} finally {
		await database.allowConnections(true);
	}
	await live(page);
	await page.locator('#notice').waitFor({ state: 'hidden' });
});

test('polling stops where it cannot go on: the page says why, and may try again', async (t) => {
	const page = await openPage();
	await live(page);
	t.after(() => database.sql('GRANT SELECT ON tasks TO demo_web'));
	await database.sql('REVOKE SELECT ON tasks FROM demo_web');
	await save({ title: 'unseen' });
	await notice(page, /Polling has stopped: .*\. Resume tries again\./);
	await page.locator('#state', { hasText: 'stopped' }).waitFor();
	await database.sql('GRANT SELECT ON tasks TO demo_web');
	await page.click('#pause');
	await live(page);
	await page.locator('#notice').waitFor({ state: 'hidden' });
	await until('the row is there', async () => (await titles(page)).length === 1);
});

test('pause and noise', async () => {
	await save({ title: 'one' });
	const page = await openPage();
	await until('the row is there', async () => (await titles(page)).length === 1);
	await page.click('#pause');
	await page.click('#noise');
	await until('there is noise', async () => (await database.sql('SELECT done FROM tasks')) === 't');
	assert.equal(await page.locator('tr.finished').count(), 0);
	await page.check('.done');
	await notice(page, 'Saved. It will show when polling resumes.');
	await page.click('#pause');
	await page.locator('#notice').waitFor({ state: 'hidden' });
	await page.locator('tr.changed').first().waitFor();
	await until('it is quiet again', () => page.isEnabled('#noise'));
});

for (const colorScheme of ['light', 'dark'])
	for (const width of [360, 768, 1280])
		test(`${colorScheme}, ${width} pixels wide: no scrolling sideways`, async () => {
			await save({ title: `A title that is as long as can be: ${'word '.repeat(30)}` });
			await save({ title: 'x'.repeat(200), done: true });
			for (const title of ['Buy bread', 'Call Ann', 'Read what polling does']) await save({ title });
			const page = await openPage('/demo/', { colorScheme, viewport: { width, height: 800 } });
			await until('the rows are there', async () => (await titles(page)).length === 5);
			await page.click('#now'); // an empty answer, and the next one is the same
			await until('there was a 304', async () => (await page.textContent('#same')) !== '0');
			assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), width);
			const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/)[0]);
			assert.equal(Number(background) < 128, colorScheme === 'dark');
			await picture(page, `${colorScheme}-${width}`);
		});

test('texts can be read: contrast of at least 4.5', async () => {
	for (const colorScheme of ['light', 'dark']) {
		await save({ title: 'x', done: true });
		const page = await openPage('/demo/', { colorScheme });
		await live(page);
		const poor = await page.evaluate(() => {
			const channels = (color) => color.match(/[\d.]+/g).map(Number);
			const luminance = (color) =>
				channels(color)
					.slice(0, 3)
					.map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
					.reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
			const background = (element) => {
				const color = getComputedStyle(element).backgroundColor;
				return channels(color)[3] === 0 ? background(element.parentElement) : color;
			};
			const texts = document.querySelectorAll('h1, h2, p, dt, dd, button, label span, .title, time, figcaption');
			return [...texts]
				.filter((element) => element.offsetParent && !element.matches('.unseen, :disabled'))
				.map((element) => {
					const [a, b] = [luminance(getComputedStyle(element).color), luminance(background(element))].sort();
					return [element.outerHTML.slice(0, 80), (b + 0.05) / (a + 0.05)];
				})
				.filter(([, contrast]) => contrast < 4.5);
		});
		assert.deepEqual(poor, []);
	}
});

test('from another origin: the tag is sent, and 304 and Retry-After are seen', async (t) => {
	const other = await Gateway.start(database.name);
	t.after(() => other.stop());
	await save({ title: 'one' });
	const page = await openPage('/healthz'); // it has no Content-Security-Policy
	const polls = await page.evaluate(async (url) => {
		const { Poller } = await import('/poll.js');
		const seen = [];
		await new Promise((resolve) => {
			const poller = new Poller({
				url,
				feeds: { tasks: () => {} },
				interval: 50,
				onPoll: (poll) => {
					seen.push([poll.status, poll.changes, Boolean(poll.etag)]);
					if (seen.length === 3) resolve(poller.stop());
				},
			}).start();
		});
		return seen;
	}, `${other.base}/poll`);
	assert.deepEqual(polls, [[200, 1, true], [200, 0, true], [304, 0, true]]);

	await database.sql("SELECT poll.set_rate_policy('poll', quota => 1, per => '1 minute', algorithm => 'gcra')");
	t.after(() => database.sql("SELECT poll.drop_rate_policy('poll')"));
	const error = await page.evaluate(async (url) => {
		const { Poller } = await import('/poll.js');
		return new Promise((resolve) => {
			const poller = new Poller({
				url,
				feeds: { tasks: () => {} },
				interval: 50,
				onError: ({ status, retryAfter }) => {
					poller.stop();
					resolve([status, retryAfter > 50000]);
				},
			}).start();
		});
	}, `${other.base}/poll`);
	assert.deepEqual(error, [429, true]);
});
