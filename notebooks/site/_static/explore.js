// The explorers of the page "Try it": perturbation and patches, computed in the browser.
// Geometry as in serplib/perturbation.py and serplib/patches.py; a test compares the two.
"use strict";

const serp = (() => {
  // ---- randomness: mulberry32 (uniform) and Box and Muller (normal), by a seed of 32 bits

  const uniform = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  const normal = (next) => () =>
    Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());

  function shuffled(count, next) {
    const order = [...Array(count).keys()];
    for (let i = count - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [order[i], order[j]] = [order[j], order[i]];
    }
    return order;
  }

  // ---- geometry: a cloud is an array of [x, y, z]

  function squared(a, b) {
    const x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
    return x * x + y * y + z * z;
  }

  // The indices of the `count` points that are nearest to a point, nearest first.
  function nearest(cloud, point, count) {
    const distance = cloud.map((other) => squared(other, point));
    return [...cloud.keys()].sort((a, b) => distance[a] - distance[b] || a - b).slice(0, count);
  }

  // Farthest point sampling: the indices of `count` points, the first given.
  function farthest(cloud, count, first) {
    const picked = [first];
    const distance = cloud.map((point) => squared(point, cloud[first]));
    while (picked.length < count) {
      let next = 0;
      for (let i = 1; i < cloud.length; i++) if (distance[i] > distance[next]) next = i;
      picked.push(next);
      cloud.forEach((point, i) => {
        distance[i] = Math.min(distance[i], squared(point, cloud[next]));
      });
    }
    return picked;
  }

  // Section 3.1. `noise` has a vector for each point of each patch; the last patch wins.
  function perturb(cloud, centers, patchSize, noise) {
    const points = cloud.map((point) => [...point]);
    const touched = cloud.map(() => false);
    centers.forEach((center, p) => {
      nearest(cloud, cloud[center], patchSize).forEach((i, n) => {
        points[i] = cloud[i].map((value, axis) => value + noise[p][n][axis]);
        touched[i] = true;
      });
    });
    return { points, touched };
  }

  // Eq. 11: the mean squared distance to the nearest point, of both clouds.
  function chamfer(a, b) {
    function side(from, to) {
      let sum = 0;
      for (const p of from) {
        let least = Infinity;
        for (let j = 0; j < to.length && least > 0; j++) least = Math.min(least, squared(p, to[j]));
        sum += least;
      }
      return sum / from.length;
    }
    return side(a, b) + side(b, a);
  }

  return { uniform, normal, shuffled, nearest, farthest, perturb, chamfer };
})();

(() => {
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // A box after a heading: controls, a line of text, and canvases that turn together.
  function explorer(heading, controls, titles, compute) {
    const section = document.getElementById(heading);
    if (!section) return;
    const inputs = {};
    const form = make("div", { className: "explorer-controls" });
    for (const [name, setting] of Object.entries(controls)) {
      const shown = make("span");
      const input = Array.isArray(setting)
        ? make("select", {}, ...setting.map((value) => make("option", { value }, value)))
        : make("input", { type: "range", ...setting });
      if (!Array.isArray(setting)) input.value = setting.value; // after min, max and step
      input.addEventListener("input", () => update());
      inputs[name] = { input, shown, isText: Array.isArray(setting) };
      form.append(make("label", {}, name + " ", shown, input));
    }
    const status = make("p", { role: "status" });
    const canvases = titles.map((title) =>
      make("canvas", { tabIndex: 0, ariaLabel: title + ": drag, or use the arrow keys, to turn" }));
    const panels = canvases.map((canvas, i) =>
      make("figure", {}, make("figcaption", {}, titles[i]), canvas));
    section.append(
      make("div", { className: "explorer" }, form, status,
        make("div", { className: "explorer-panels" }, ...panels)));

    let layers = [];
    const view = { azimuth: -58, elevation: 22 }; // degrees, as in the figures of the course

    function update() {
      const values = {};
      for (const [name, { input, shown, isText }] of Object.entries(inputs)) {
        values[name] = isText ? input.value : Number(input.value);
        shown.innerText = isText ? "" : input.value;
      }
      const result = compute(values, inputs);
      status.innerText = result.text;
      layers = result.layers;
      draw();
    }

    // Orthographic, far points first.
    function draw() {
      const [a, e] = [view.azimuth, view.elevation].map((angle) => (angle * Math.PI) / 180);
      const right = [-Math.sin(a), Math.cos(a), 0];
      const up = [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)];
      const toward = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
      const along = (axis, p) => axis[0] * p[0] + axis[1] * p[1] + axis[2] * p[2];
      canvases.forEach((canvas, i) => {
        const size = canvas.clientWidth * devicePixelRatio;
        Object.assign(canvas, { width: size, height: size });
        const pen = canvas.getContext("2d");
        const dots = layers[i].flatMap(({ points, color, radius }) =>
          points.map((p) => [along(toward, p), along(right, p), along(up, p), color, radius]));
        dots.sort((one, other) => one[0] - other[0]);
        for (const [, x, y, color, radius] of dots) {
          pen.fillStyle = color;
          pen.beginPath();
          pen.arc(size * (0.5 + 0.45 * x), size * (0.5 - 0.45 * y),
            (radius * size) / 400, 0, 2 * Math.PI);
          pen.fill();
        }
      });
    }

    function turn(azimuth, elevation) {
      view.azimuth += azimuth;
      view.elevation = Math.max(-90, Math.min(90, view.elevation + elevation));
      draw();
    }
    for (const canvas of canvases) {
      canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
      canvas.addEventListener("pointermove", (event) => {
        if (event.buttons) turn(-event.movementX / 2, event.movementY / 2);
      });
      canvas.addEventListener("keydown", (event) => {
        const step = { ArrowLeft: [5, 0], ArrowRight: [-5, 0], ArrowUp: [0, 5], ArrowDown: [0, -5] };
        if (!(event.key in step)) return;
        event.preventDefault();
        turn(...step[event.key]);
      });
    }
    addEventListener("resize", draw);
    update();
  }

  const COLORS = { clean: "#0072B2", touched: "#D55E00", perturbed: "#E69F00", neutral: "#9A9A9A" };
  const range = (value, min, max, step = 1) => ({ min, max, step, value });
  const split = (points, marked) => [
    points.filter((_, i) => !marked[i]), points.filter((_, i) => marked[i])];

  addEventListener("DOMContentLoaded", () => {
    const names = Object.keys(serpShapes);
    explorer("perturb-a-shape", {
      shape: names, patches: range(20, 1, 64), "points a patch": range(20, 1, 64),
      sigma: range(0.03, 0, 0.2, 0.005), seed: range(0, 0, 99),
      centres: ["random", "fps"], noise: ["one vector a point", "one vector a patch"],
    }, ["clean", "perturbed"], (values) => {
      const cloud = serpShapes[values.shape];
      const next = serp.uniform(values.seed);
      const gauss = serp.normal(next);
      const [patches, size] = [values.patches, values["points a patch"]];
      const order = serp.shuffled(cloud.length, next);
      const centers = values.centres == "fps"
        ? serp.farthest(cloud, patches, order[0]) : order.slice(0, patches);
      const vector = () => [0, 1, 2].map(() => values.sigma * gauss());
      const noise = centers.map(() => {
        const own = vector();
        return Array.from({ length: size }, values.noise.endsWith("point") ? vector : () => own);
      });
      const { points, touched } = serp.perturb(cloud, centers, size, noise);
      const [calm, moved] = split(cloud, touched);
      const [still, noisy] = split(points, touched);
      const distance = 1e4 * serp.chamfer(points, cloud);
      return {
        text: `${moved.length} of ${cloud.length} points touched ` +
          `(${patches} x ${size} = ${patches * size} picks). ` +
          `Chamfer distance perturbed to clean: ${distance.toFixed(1)}e-4`,
        layers: [
          [{ points: calm, color: COLORS.clean, radius: 2 },
            { points: moved, color: COLORS.touched, radius: 2.8 }],
          [{ points: still, color: COLORS.neutral, radius: 2 },
            { points: noisy, color: COLORS.perturbed, radius: 2.8 }]],
      };
    });

    explorer("cut-a-shape-into-patches", {
      shape: names, centres: range(64, 4, 128), "points a patch": range(32, 2, 128),
      patch: range(0, 0, 127),
    }, ["one patch", "in how many patches is a point?"], (values, inputs) => {
      const cloud = serpShapes[values.shape];
      const [count, size] = [values.centres, values["points a patch"]];
      inputs.patch.input.max = count - 1;
      const patch = Math.min(values.patch, count - 1);
      inputs.patch.shown.innerText = patch;
      const centers = serp.farthest(cloud, count, 0);
      const members = centers.map((center) => serp.nearest(cloud, cloud[center], size));
      const uses = cloud.map(() => 0);
      members.flat().forEach((i) => { uses[i]++; });
      const mine = cloud.map((_, i) => members[patch].includes(i));
      const [rest, shown] = split(cloud, mine);
      const none = uses.filter((n) => n == 0).length;
      const at = (low, high) => cloud.filter((_, i) => low <= uses[i] && uses[i] <= high);
      return {
        text: `${count} x ${size} = ${count * size} picks: a point is in ` +
          `${((count * size) / cloud.length).toFixed(2)} patches on average; ` +
          `${none} of ${cloud.length} points are in none (orange), ` +
          `${at(1, 1).length} in one (grey), ${cloud.length - none - at(1, 1).length} in more (blue).`,
        layers: [
          [{ points: rest, color: COLORS.neutral, radius: 2 },
            { points: shown, color: COLORS.touched, radius: 2.8 },
            { points: [cloud[centers[patch]]], color: COLORS.clean, radius: 5 }],
          [{ points: at(0, 0), color: COLORS.perturbed, radius: 2.8 },
            { points: at(1, 1), color: COLORS.neutral, radius: 2 },
            { points: at(2, Infinity), color: COLORS.clean, radius: 2.4 }]],
      };
    });
  });
})();
