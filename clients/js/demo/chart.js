// The interval over time, with a dot for each poll

const SPAN = 120; // seconds
const LEFT = 24; // for the labels
const RIGHT = 6; // for half a dot
const BOTTOM = 18;

function element(name, attributes, text) {
	const result = document.createElementNS('http://www.w3.org/2000/svg', name);
	for (const [key, value] of Object.entries(attributes)) result.setAttribute(key, value);
	if (text) result.textContent = text;
	return result;
}

/** polls: {time, interval, kind}, oldest first. Those that are too old are dropped. */
export function drawChart(svg, polls) {
	const now = Date.now();
	const { width, height } = svg.getBoundingClientRect();
	const right = width - RIGHT;
	while (polls.length > 1 && polls[1].time < now - SPAN * 1000) polls.shift();

	const highest = Math.max(2000, ...polls.map((poll) => poll.interval)) / 1000;
	const step = [1, 2, 5, 10, 20, 50].find((size) => highest / size <= 4) ?? 100;
	const top = Math.ceil(highest / step) * step;
	const x = (time) => Math.max(right - ((now - time) / 1000 / SPAN) * (right - LEFT), LEFT);
	const y = (seconds) => 6 + (1 - seconds / top) * (height - BOTTOM - 6);

	const shapes = [];
	for (let value = 0; value <= top; value += step) {
		shapes.push(element('line', { class: 'grid', x1: LEFT, x2: width, y1: y(value), y2: y(value) }));
		shapes.push(element('text', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, `${value}`));
	}
	shapes.push(element('text', { x: LEFT, y: height }, '2 minutes ago'));
	shapes.push(element('text', { x: width, y: height, 'text-anchor': 'end' }, 'now'));

	let path = '';
	for (const poll of polls) path += `${path ? 'H' : 'M'}${x(poll.time)}${path ? 'V' : ' '}${y(poll.interval / 1000)}`;
	if (path) shapes.push(element('path', { class: 'line', d: `${path}H${right}` }));
	for (const poll of polls)
		if (poll.time >= now - SPAN * 1000)
			shapes.push(element('circle', { class: poll.kind, r: 4, cx: x(poll.time), cy: y(poll.interval / 1000) }));
	svg.replaceChildren(...shapes);
	svg.ariaLabel = `The interval is ${((polls.at(-1)?.interval ?? 0) / 1000).toFixed(1)} seconds`;
}
