// A poster for every movie, drawn from its title and genres: always the same one, and nothing to download.
import { draw } from "./dom.js";

const HUES = {
  Action: 8, Adventure: 30, Animation: 190, Children: 48, Comedy: 42, Crime: 225, Documentary: 160, Drama: 345,
  Fantasy: 270, "Film-Noir": 220, Horror: 355, Musical: 310, Mystery: 250, Romance: 335, "Sci-Fi": 205, Thriller: 240,
  War: 75, Western: 24,
};
const SCENES = {
  Western: [sun, peaks], Adventure: [peaks, waves], Fantasy: [peaks, waves, orbits], Action: [rays, skyline], War: [rays, blinds],
  "Sci-Fi": [orbits, sun], Mystery: [orbits, blinds], "Film-Noir": [blinds, skyline], Thriller: [blinds, rays],
  Crime: [skyline, blinds], Drama: [sun, waves, pair], Romance: [pair, waves], Musical: [pair, rays], Comedy: [dots, pair, steps],
  Children: [dots, steps], Animation: [dots, steps, waves], Horror: [peaks, blinds], Documentary: [orbits, skyline],
};
const ANY = [sun, peaks, orbits, dots, pair, waves, steps];

export function poster(item) {
  const random = seeded(`${item.title}#${item.item_id}`);
  const genre = item.genres[Math.floor(random() * item.genres.length)] ?? "";
  const hue = (HUES[genre] ?? Math.floor(seeded(genre)() * 360)) + random() * 24 - 12;
  const dark = random() < 0.55;
  const tint = (shift, light) => `hsl(${(hue + shift + 360) % 360} ${dark ? 48 : 58}% ${light}%)`;
  const colours = dark
    ? { ground: tint(0, 17), far: tint(12, 29), near: tint(-14, 42), light: tint(34, 68) }
    : { ground: tint(16, 72), far: tint(0, 57), near: tint(-16, 40), light: tint(40, 86) };
  const scenes = SCENES[genre] ?? ANY;
  const scene = scenes[Math.floor(random() * scenes.length)];
  return draw("svg", { viewBox: "0 0 90 120", preserveAspectRatio: "xMidYMid slice", "aria-hidden": "true" },
    draw("rect", { width: 90, height: 120, fill: colours.ground }), ...scene(random, colours));
}

function sun(random, { far, near, light }) {
  const x = 25 + random() * 40, y = 34 + random() * 16, r = 14 + random() * 10;
  const bands = [0, 1, 2].map((n) => draw("rect", { x: 0, y: 62 + n * 20, width: 90, height: 30, fill: [far, near, far][n] }));
  return [draw("circle", { cx: x, cy: y, r, fill: light }), ...bands];
}

function peaks(random, { far, near, light }) {
  const ridge = (base, height, fill) => {
    let path = `M0 120V${base}`;
    for (let x = 0; x <= 90; x += 18) path += `L${x + random() * 9} ${base - random() * height}`;
    return draw("path", { d: `${path}L90 ${base}V120Z`, fill });
  };
  return [draw("circle", { cx: 20 + random() * 50, cy: 26, r: 6 + random() * 7, fill: light }), ridge(66, 34, far), ridge(92, 38, near)];
}

function rays(random, { far, near, light }) {
  const x = 20 + random() * 50, y = 46 + random() * 20, turn = random() * 30;
  const wedges = Array.from({ length: 9 }, (_, n) => {
    const [from, to] = [n * 40 + turn, n * 40 + turn + 20].map((degree) => (degree * Math.PI) / 180);
    const point = (angle) => `${x + 160 * Math.cos(angle)} ${y + 160 * Math.sin(angle)}`;
    return draw("path", { d: `M${x} ${y}L${point(from)}L${point(to)}Z`, fill: n % 2 ? far : near });
  });
  return [...wedges, draw("circle", { cx: x, cy: y, r: 12 + random() * 6, fill: light })];
}

function orbits(random, { far, near, light }) {
  const x = 20 + random() * 50, y = 42 + random() * 24, angle = random() * 6.3;
  const rings = [54, 40, 27].map((r, n) => draw("circle", { cx: x, cy: y, r, fill: n % 2 ? near : far, "fill-opacity": 0.75 }));
  return [...rings, draw("circle", { cx: x, cy: y, r: 12, fill: light }),
    draw("circle", { cx: x + 40 * Math.cos(angle), cy: y + 40 * Math.sin(angle), r: 4, fill: light })];
}

function blinds(random, { far, near, light }) {
  const tilt = 12 + random() * 14;
  const slats = Array.from({ length: 9 }, (_, n) => draw("path", { d: `M-5 ${n * 16}L95 ${n * 16 - tilt}v7L-5 ${n * 16 + 7}Z`, fill: n % 2 ? far : near }));
  return [...slats, draw("circle", { cx: 28 + random() * 34, cy: 46, r: 15, fill: light })];
}

function skyline(random, { far, near, light }) {
  const towers = [far, near].flatMap((fill, row) => Array.from({ length: 8 }, (_, n) => {
    const height = 34 + random() * 40 - row * 12;
    return draw("rect", { x: n * 12 - row * 5, y: 120 - height - 14, width: 10, height: height + 20, fill });
  }));
  return [draw("circle", { cx: 18 + random() * 54, cy: 24, r: 9, fill: light }), ...towers];
}

function pair(random, { far, near, light }) {
  const y = 44 + random() * 12, r = 22 + random() * 5;
  return [draw("circle", { cx: 33, cy: y, r, fill: near }), draw("circle", { cx: 57, cy: y + 4, r, fill: light, "fill-opacity": 0.72 }),
    draw("rect", { x: 0, y: 92, width: 90, height: 28, fill: far })];
}

function dots(random, { far, near, light }) {
  const special = Math.floor(random() * 16);
  return Array.from({ length: 20 }, (_, n) => draw("circle", {
    cx: 14 + (n % 4) * 20.7, cy: 16 + Math.floor(n / 4) * 20.7, r: n === special ? 9.6 : 5 + random() * 3.6,
    fill: n === special ? light : random() < 0.5 ? far : near,
  }));
}

function waves(random, { far, near, light }) {
  const wave = (y, fill) => {
    const lift = 8 + random() * 10, shift = random() * 40 - 30;
    const swells = [0, 1, 2, 3].map((n) => `q${n % 2 ? `10 ${lift} 20 0t20 0` : `10 ${-lift} 20 0t20 0`}`).join("");
    return draw("path", { d: `M${shift} ${y}${swells}V130H${shift}Z`, fill });
  };
  return [draw("circle", { cx: 22 + random() * 46, cy: 30, r: 9 + random() * 7, fill: light }), wave(58, far), wave(76, near), wave(96, far)];
}

function steps(random, { far, near, light }) {
  const up = random() < 0.5;
  const blocks = Array.from({ length: 6 }, (_, n) => {
    const place = up ? n : 5 - n;
    return draw("rect", { x: n * 15, y: 88 - place * 12, width: 15, height: 120, fill: n % 2 ? far : near });
  });
  return [...blocks, draw("circle", { cx: up ? 67 : 22, cy: 16, r: 8, fill: light }), draw("circle", { cx: up ? 22 : 67, cy: 58, r: 8, fill: light })];
}

function seeded(text) {
  let state = 2166136261;
  for (const letter of text) state = Math.imul(state ^ letter.codePointAt(0), 16777619);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
