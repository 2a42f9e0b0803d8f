// The explorers of the page "Try it". Perturbation, patches and the stored models are computed here
// (serp.js, restore.js); the denoising and codebook explorers step through states that the library
// computed (states.js).
"use strict";

(() => {
  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };

  // ---- controls: a fieldset, and the value that it holds

  const KINDS = {
    menu(label, { menu }) {
      const select = make("select", { ariaLabel: label }, ...menu.map((name) =>
        make("option", {}, name)));
      return { children: [select], value: () => select.value };
    },

    toggle(label, { toggle }) {
      const inputs = toggle.map((value, i) =>
        make("input", { type: "radio", name: label, value, checked: i == 0 }));
      const buttons = inputs.map((input) => make("label", {}, input, input.value));
      return {
        children: [make("div", { className: "explorer-toggle" }, ...buttons)],
        value: () => inputs.find((input) => input.checked).value,
      };
    },

    // A slider over numbers, with a box to type into.
    range(label, { range: [value, min, max, step = 1] }) {
      const limits = { min, max, step };
      const slider = make("input", { type: "range", ariaLabel: label, ...limits, value });
      const box = make("input", { type: "number", ariaLabel: `${label}, typed`, ...limits, value });
      slider.addEventListener("input", () => { box.value = slider.value; });
      box.addEventListener("input", () => { if (box.value) slider.value = box.value; });
      box.addEventListener("change", () => { box.value = slider.value; });
      return {
        children: [slider, box],
        value: () => Number(slider.value),
        limit(max) {
          for (const input of [slider, box]) Object.assign(input, { max });
          box.value = slider.value;
        },
      };
    },

    // A slider over a list of values, with a button to each side.
    steps(label, { steps, start = 0 }) {
      const last = steps.length - 1;
      const slider = make("input", {
        type: "range", ariaLabel: label, min: 0, max: last, value: start });
      const shown = make("span");
      const value = () => steps[slider.value];
      const show = () => { shown.innerText = slider.ariaValueText = String(value()); };
      const button = (sign, name, by) => {
        const made = make("button", { type: "button", ariaLabel: `${name} ${label}` }, sign);
        made.addEventListener("click", () => {
          slider.value = Number(slider.value) + by;
          slider.dispatchEvent(new Event("input", { bubbles: true }));
        });
        return made;
      };
      slider.addEventListener("input", show);
      show();
      return {
        children: [button("\u2039", "previous", -1), slider, button("\u203a", "next", 1), shown],
        value,
      };
    },
  };

  function control(label, setting) {
    const { children, ...made } = KINDS[Object.keys(setting)[0]](label, setting);
    return { element: make("fieldset", {}, make("legend", {}, label), ...children), ...made };
  }

  // ---- drawing

  // The middle of a cloud, and how far a share of its points reaches at most from a middle, however
  // they are turned about the vertical.
  function middle(cloud) {
    return [0, 1, 2].map((axis) => {
      const values = cloud.map((p) => p[axis]);
      return (Math.min(...values) + Math.max(...values)) / 2;
    });
  }
  function extent(cloud, share, center, elevation) {
    const [sine, cosine] = [Math.abs(Math.sin(elevation)), Math.cos(elevation)];
    const reach = cloud.map((p) => {
      const aside = Math.hypot(p[0] - center[0], p[1] - center[1]);
      return Math.max(aside, aside * sine + Math.abs(p[2] - center[2]) * cosine);
    });
    return reach.sort((a, b) => a - b)[Math.floor(share * (cloud.length - 1))];
  }

  // The points of layers in orthographic projection, far ones first. A layer of a grid has a place
  // `at` [column, row]; radii are in pixels of a panel of 400.
  function drawPoints(pen, layers, columns, [a, e], [center, reach]) {
    const right = [-Math.sin(a), Math.cos(a), 0];
    const up = [-Math.sin(e) * Math.cos(a), -Math.sin(e) * Math.sin(a), Math.cos(e)];
    const toward = [Math.cos(e) * Math.cos(a), Math.cos(e) * Math.sin(a), Math.sin(e)];
    const along = (axis, p) => axis[0] * p[0] + axis[1] * p[1] + axis[2] * p[2];
    const cell = pen.canvas.width / columns;
    const scale = (0.46 * cell) / reach;
    const [x0, y0] = [along(right, center), along(up, center)];
    const dots = layers.flatMap(({ points, color, radius, at: [column, row] = [0, 0] }) =>
      points.map((p) => [
        along(toward, p), cell * (column + 0.5) + scale * (along(right, p) - x0),
        cell * (row + 0.5) - scale * (along(up, p) - y0), color,
        (radius * pen.canvas.width) / 400]));
    dots.sort((one, other) => one[0] - other[0]);
    for (const [, x, y, color, radius] of dots) {
      pen.fillStyle = color;
      pen.beginPath();
      pen.arc(x, y, radius, 0, 2 * Math.PI);
      pen.fill();
    }
  }

  function drawBars(pen, { bars, marked }) {
    const { width, height } = pen.canvas;
    const size = (0.06 * height), most = Math.max(...bars), step = width / bars.length;
    pen.font = `${size}px sans-serif`;
    pen.fillStyle = getComputedStyle(pen.canvas).color;
    pen.fillText(most, 0, size);
    bars.forEach((value, i) => {
      const tall = (value / most) * (height - 1.5 * size);
      pen.fillStyle = i == marked ? COLORS.touched : COLORS.neutral;
      pen.fillRect(i * step, height - tall - 2, Math.max(1, 0.75 * step), tall + 2);
    });
  }

  const SETTLED = 80; // milliseconds without a change

  // A box after a heading: controls, a line of text, and panels that turn together. `compute` gets
  // the values of the controls; it returns the text, layers or bars for each panel, the frame, see
  // `fit`, and `later`: what to show instead, computed once the controls have settled.
  function explorer(heading, settings, panels, compute) {
    const section = document.getElementById(heading);
    if (!section) return;
    const controls = Object.fromEntries(
      Object.entries(settings).map(([label, setting]) => [label, control(label, setting)]));
    const form = make("form", { className: "explorer-controls" },
      ...Object.values(controls).map(({ element }) => element));
    const status = make("p", { role: "status" });
    const canvases = panels.map(({ title, flat, columns = 1, rows = 1 }) => {
      const canvas = make("canvas", { role: "img", ariaLabel: title });
      if (!flat) {
        canvas.tabIndex = 0;
        canvas.ariaLabel += ": drag, or use the arrow keys, to turn";
      }
      canvas.style.aspectRatio = `${columns} / ${rows}`;
      return canvas;
    });
    const figures = canvases.map((canvas, i) =>
      make("figure", { className: panels[i].columns > 1 ? "explorer-wide" : "" },
        make("figcaption", {}, panels[i].title), canvas));
    section.append(make("div", { className: "explorer" }, form, status,
      make("div", { className: "explorer-panels" }, ...figures)));

    const view = { azimuth: -58, elevation: 22 }; // degrees, as in the figures of the course
    let shown, waiting;

    function update() {
      const values = Object.fromEntries(
        Object.entries(controls).map(([label, { value }]) => [label, value()]));
      show(compute(values, controls));
      clearTimeout(waiting);
      if (shown.later) waiting = setTimeout(() => show(shown.later()), SETTLED);
    }

    function show(computed) {
      shown = computed;
      status.innerText = shown.text;
      draw();
    }

    // The first cloud of the frame fills its panel. Where most of the second one is larger, all
    // become smaller, an eighth at a time, so that small moves leave the size as it is.
    function fit([first, second], elevation) {
      const center = middle(first);
      const reach = extent(first, 1, center, elevation);
      const other = extent(second, 0.97, center, elevation);
      return [center, (reach * Math.ceil(Math.max(8, 8 * other / reach - 0.4))) / 8];
    }

    function draw() {
      const angles = [view.azimuth, view.elevation].map((angle) => (angle * Math.PI) / 180);
      const frame = shown.frame ? fit(shown.frame, angles[1]) : [[0, 0, 0], 1];
      canvases.forEach((canvas, i) => {
        canvas.width = canvas.clientWidth * devicePixelRatio;
        canvas.height = canvas.clientHeight * devicePixelRatio;
        const pen = canvas.getContext("2d"), panel = shown.panels[i];
        if (panel.bars) drawBars(pen, panel);
        else drawPoints(pen, panel, panels[i].columns ?? 1, angles, frame);
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
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    addEventListener("resize", draw);
    update();
  }

  // ---- the four explorers

  const COLORS = {
    clean: "#0072B2", touched: "#D55E00", perturbed: "#E69F00", restored: "#009E73",
    neutral: "#9A9A9A" };
  const PAPER = "noise (the paper)";
  const dots = (points, color, radius = 2) => ({ points, color: COLORS[color], radius });
  const split = (points, marked) => [
    points.filter((_, i) => !marked[i]), points.filter((_, i) => marked[i])];
  const small = (value) => `${(1e4 * value).toFixed(1)}e-4`;

  // A clean panel and a perturbed one: `changed` marks clean points, `touched` perturbed ones.
  function pair(clean, points, changed, touched) {
    const [calm, moved] = split(clean, changed), [still, noisy] = split(points, touched);
    return [
      [dots(calm, "clean"), dots(moved, "touched", 2.8)],
      [dots(still, "neutral"), dots(noisy, "perturbed", 2.8)]];
  }

  const models = {}; // read when first used
  const restore = (name, cloud) => (models[name] ??= serpModel(serpModels[name]))(cloud);
  const compared = (mended, copied) => `${small(mended)} (${mended < copied ? "better" : "worse"})`;

  let repaired = []; // what the third panel shows until the next restoration

  function perturbation(values, controls) {
    const cloud = serpShapes[values.shape], isNoise = values.family == PAPER;
    const ofNoise = ["patches", "points a patch", "sigma", "centres", "a vector for each"];
    for (const name of ofNoise) controls[name].element.disabled = !isNoise;
    const [patches, size] = [values.patches, values["points a patch"]];
    const settings = {
      patches, size, sigma: values.sigma, centers: values.centres,
      vector: values["a vector for each"] };
    const steps = isNoise ? [serp.noise(settings)] : serp.families[values.family];
    const { points, touched, changed } = serp.perturb(cloud, steps, values.seed);
    const count = changed.filter(Boolean).length;
    const model = isNoise ? "transformer-restore" : "transformer-affine";
    const copied = serp.chamfer(points, cloud);
    const what = isNoise
      ? `points touched (${patches} x ${size} = ${patches * size} picks)`
      : "clean points moved, dropped or replaced";
    const text = `${count} of ${cloud.length} ${what}. Chamfer perturbed to clean, the copy ` +
      `baseline: ${small(copied)}; restored by ${model} `;
    const show = (end) => ({
      text: text + end,
      panels: [...pair(cloud, points, changed, touched), [dots(repaired, "restored")]],
      frame: [cloud, points],
    });
    return {
      ...show("..."),
      later() {
        repaired = restore(model, points);
        return show(`${compared(serp.chamfer(repaired, cloud), copied)}.`);
      },
    };
  }

  function patchExplorer(values, controls) {
    const cloud = serpShapes[values.shape];
    const [count, size] = [values.centres, values["points a patch"]];
    controls.patch.limit(count - 1);
    const members = serp.patches(cloud, count, size);
    const open = new Set(members[Math.min(values.patch, count - 1)]);
    const uses = cloud.map(() => 0);
    members.flat().forEach((i) => { uses[i]++; });
    const [rest, mine] = split(cloud, cloud.map((_, i) => open.has(i)));
    const at = (low, high) => cloud.filter((_, i) => low <= uses[i] && uses[i] <= high);
    const [none, one, more] = [at(0, 0), at(1, 1), at(2, Infinity)];
    return {
      text: `${count} x ${size} = ${count * size} picks: a point is in ` +
        `${((count * size) / cloud.length).toFixed(2)} patches on average; ` +
        `${none.length} of ${cloud.length} points are in none (orange), ` +
        `${one.length} in one (grey), ${more.length} in more (blue).`,
      panels: [
        [dots(rest, "neutral"), dots(mine, "touched", 2.8),
          dots([cloud[open.values().next().value]], "clean", 5)], // the centre is its nearest
        [dots(none, "perturbed", 2.8), dots(one, "neutral"), dots(more, "clean", 2.4)]],
      frame: [cloud, cloud],
    };
  }

  // Points from the base64 text of their coordinates: 16-bit integers, `unit` long.
  function unpack(text, unit) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const read = (i) => view.getInt16(2 * i, true) * unit;
    return Array.from({ length: bytes.length / 6 }, (_, i) =>
      [read(3 * i), read(3 * i + 1), read(3 * i + 2)]);
  }

  function denoising(values) {
    const cloud = serpShapes[values.shape], { unit, shapes } = serpStates.denoising;
    const { shift, restored } = shapes[values.shape];
    const shifts = unpack(shift, unit);
    const points = cloud.map((p, i) => p.map((x, axis) => x + values.sigma * shifts[i][axis]));
    const touched = shifts.map((vector) => vector.some(Boolean));
    const repaired = unpack(restored[values.sigma], unit);
    const [copied, mended] = [points, repaired].map((other) => serp.chamfer(other, cloud));
    return {
      text: `${values.shape}: ${touched.filter(Boolean).length} of ${cloud.length} points ` +
        `touched. Chamfer to clean: copying the input ${small(copied)}; restored ` +
        `${compared(mended, copied)}.`,
      panels: [...pair(cloud, points, touched, touched), [dots(repaired, "restored")]],
      frame: [cloud, points],
    };
  }

  // The six shapes of the codebook with as many points as the networks read, and their patches.
  function codedShapes({ points, patches, size }) {
    return Object.values(serpShapes).map((whole) => {
      const cloud = serp.farthest(whole, points).map((i) => whole[i]);
      return { cloud, members: serp.patches(cloud, patches, size) };
    });
  }

  // Subtract the mean of a patch, divide by its standard deviation; two of them fill the panel.
  function normalized(points) {
    const mean = [0, 1, 2].map((axis) => points.reduce((s, p) => s + p[axis], 0) / points.length);
    const centred = points.map((p) => p.map((value, axis) => value - mean[axis]));
    const squares = centred.flat().reduce((sum, value) => sum + value * value, 0);
    const unit = 2.7 * Math.sqrt(squares / (3 * points.length));
    return centred.map((p) => p.map((value) => value / unit));
  }

  function codebook(shapes) {
    return (values) => {
      const { steps, trainings, codes: size } = serpStates.codebook;
      const { counts, codes } = trainings[values.training][steps.indexOf(values.step)];
      const order = serp.argsort(counts.map((count) => -count)); // most used first
      const code = order[values["code, by use"] - 1];
      const total = counts.reduce((sum, count) => sum + count, 0);
      const panels = [[], [], { bars: order.map((i) => counts[i]), marked: order.indexOf(code) }];
      shapes.forEach(({ cloud, members }, i) => {
        const taken = members.filter((_, patch) => codes[i][patch] == code);
        const inside = new Set(taken.flat()), at = [i % 3, Math.floor(i / 3)];
        const [rest, mine] = split(cloud, cloud.map((_, point) => inside.has(point)));
        panels[0].push({ ...dots(rest, "neutral", 1), at }, { ...dots(mine, "touched", 1.5), at });
        for (const patch of taken) {
          panels[1].push(dots(normalized(patch.map((point) => cloud[point])), "touched", 2.4));
        }
      });
      return {
        text: `Step ${values.step}: perplexity ${serp.perplexity(counts).toFixed(1)} of ${size}, ` +
          `${counts.filter(Boolean).length} codes in use. Code ${code}: ${counts[code]} of ` +
          `${total} held-out patches (${((100 * counts[code]) / total).toFixed(1)} %), and ` +
          `${panels[1].length} of the patches below.`,
        panels,
      };
    };
  }

  addEventListener("DOMContentLoaded", () => {
    const menu = Object.keys(serpShapes);
    const titles = (...names) => names.map((title) => ({ title }));
    explorer("perturb-a-shape", {
      shape: { menu }, family: { menu: [PAPER, ...Object.keys(serp.families)] },
      patches: { range: [20, 1, 64] }, "points a patch": { range: [20, 1, 64] },
      sigma: { range: [0.03, 0, 0.2, 0.005] }, seed: { range: [0, 0, 99] },
      centres: { toggle: ["random", "fps"] },
      "a vector for each": { toggle: ["point", "patch"] },
    }, titles("clean", "perturbed", "restored"), perturbation);

    explorer("cut-a-shape-into-patches", {
      shape: { menu }, centres: { range: [64, 4, 128] }, "points a patch": { range: [32, 2, 128] },
      patch: { range: [0, 0, 127] },
    }, titles("one patch", "in how many patches is a point?"), patchExplorer);

    const { sigmas, shapes } = serpStates.denoising;
    explorer("restore-a-shape", {
      shape: { menu: Object.keys(shapes) }, sigma: { steps: sigmas, start: sigmas.indexOf(0.1) },
    }, titles("clean", "perturbed", "restored"), denoising);

    const { steps, trainings, codes } = serpStates.codebook;
    explorer("watch-a-codebook", {
      training: { toggle: Object.keys(trainings) }, step: { steps, start: steps.length - 1 },
      "code, by use": { range: [1, 1, codes] },
    }, [
      { title: "its patches on six shapes", columns: 3, rows: 2 },
      { title: "the same patches, normalised" },
      { title: "held-out patches of each code", flat: true },
    ], codebook(codedShapes(serpStates.codebook)));
  });
})();
