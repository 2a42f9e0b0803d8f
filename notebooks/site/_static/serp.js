// Geometry, perturbations and their random numbers, as in serplib/geometry.py, perturbation.py and
// families.py; a test compares the two for the same seed. A cloud is an array of [x, y, z].
"use strict";

const serp = (() => {
  const times = (count, one) => Array.from({ length: count }, (_, i) => one(i));
  const argsort = (values) => [...values.keys()].sort((a, b) => values[a] - values[b] || a - b);

  // ---- randomness: mulberry32 of a 32-bit seed, its upper 24 bits as a number in [0, 1)

  const uniform = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 8) / 16777216;
  };
  const between = (low, high, next) => low + (high - low) * next();
  const integer = (low, high, next) => Math.floor(between(low, high, next)); // below `high`
  const normal = (next) => // Box and Muller
    Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  const permutation = (count, next) => argsort(times(count, next));

  // ---- geometry

  function squared(a, b) {
    const x = a[0] - b[0], y = a[1] - b[1], z = a[2] - b[2];
    return x * x + y * y + z * z;
  }

  // The indices of the `count` points that are nearest to a point, nearest first.
  function nearest(cloud, point, count) {
    const distance = Float64Array.from(cloud, (other) => squared(other, point));
    const farthest = distance.slice().sort()[count - 1]; // sorting numbers is fast
    const near = [...cloud.keys()].filter((i) => distance[i] <= farthest);
    return argsort(near.map((i) => distance[i])).slice(0, count).map((place) => near[place]);
  }

  // Farthest point sampling: the indices of `count` points, the first given.
  function farthest(cloud, count, first = 0) {
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

  // Eq. 2 and 3: the indices of the points of each patch, around farthest points.
  const patches = (cloud, count, size) =>
    farthest(cloud, count).map((center) => nearest(cloud, cloud[center], size));

  // Eq. 11: the mean squared distance to the nearest point, of both clouds.
  function chamfer(a, b) {
    const [one, other] = [a, b].map((cloud) => Float64Array.from(cloud.flat()));
    function side(from, to) {
      let sum = 0;
      for (let i = 0; i < from.length; i += 3) {
        let least = Infinity;
        for (let j = 0; j < to.length; j += 3) {
          const x = from[i] - to[j], y = from[i + 1] - to[j + 1], z = from[i + 2] - to[j + 2];
          least = Math.min(least, x * x + y * y + z * z);
        }
        sum += least;
      }
      return (3 * sum) / from.length;
    }
    return side(one, other) + side(other, one);
  }

  // The effective number of codes, exp of the entropy of their counts.
  function perplexity(counts) {
    const total = counts.reduce((sum, count) => sum + count, 0);
    const shares = counts.filter((count) => count > 0).map((count) => count / total);
    return Math.exp(-shares.reduce((sum, share) => sum + share * Math.log(share), 0));
  }

  // ---- perturbations: a cloud and a generator to points, the source of each, and those moved

  // Section 3.1: noise on patches around random centres ("random", "fps"), a vector for each
  // "point" or each "patch". Where patches overlap, the last one wins.
  const noise = ({ patches, size, sigma, centers, vector }) => (cloud, next) => {
    const order = permutation(cloud.length, next);
    const picked = centers == "fps"
      ? farthest(order.map((i) => cloud[i]), patches).map((i) => order[i]) : order;
    const draw = () => times(3, () => sigma * normal(next));
    const points = [...cloud], touched = cloud.map(() => false);
    for (const center of picked.slice(0, patches)) {
      const shared = vector == "patch" && draw();
      for (const i of nearest(cloud, cloud[center], size)) {
        const shift = shared || draw();
        points[i] = cloud[i].map((value, axis) => value + shift[axis]);
        touched[i] = true;
      }
    }
    return { points, source: [...cloud.keys()], touched };
  };

  // One to three of five affine maps. Numbers are drawn for all of them.
  function affine(cloud, next) {
    const three = (one) => times(3, one);
    const along = (factors) => (p) => p.map((value, axis) => value * factors[axis]);
    const maps = [
      () => {
        const angle = between(-Math.PI, Math.PI, next);
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        return ([x, y, z]) => [c * x - s * y, s * x + c * y, z];
      },
      () => along(three(() => 2 * integer(0, 2, next) - 1)),
      () => along(three(() => between(0.5, 2, next))),
      () => {
        const drawn = three(() => three(() => between(-0.5, 0.5, next)));
        return (p) => three((i) => p[i] + three((j) => (i == j ? 0 : drawn[i][j] * p[j]))
          .reduce((sum, value) => sum + value));
      },
      () => {
        const shift = three(() => between(-0.5, 0.5, next));
        return (p) => p.map((value, axis) => value + shift[axis]);
      },
    ];
    const place = permutation(maps.length, next), count = integer(1, 4, next);
    let points = cloud;
    maps.forEach((make, i) => {
      const map = make();
      if (place[i] < count) points = points.map(map);
    });
    return { points, source: [...cloud.keys()], touched: cloud.map(() => true) };
  }

  // Half of the points gone, around five centres or one by one; kept points take their places.
  const drop = (where) => (cloud, next) => {
    const order = permutation(cloud.length, next);
    const size = Math.floor(cloud.length / 2 / 5);
    const gone = new Set(where == "random" ? order.slice(0, Math.floor(cloud.length / 2))
      : order.slice(0, 5).flatMap((center) => nearest(cloud, cloud[center], size)));
    const kept = permutation(cloud.length, next).filter((i) => !gone.has(i));
    let turn = 0;
    const source = cloud.map((_, i) => (gone.has(i) ? kept[turn++ % kept.length] : i));
    return { points: source.map((i) => cloud[i]), source, touched: cloud.map(() => false) };
  };

  // A tenth of the points replaced: anywhere in the cube, or by noise around points of the cloud.
  const outliers = (where) => (cloud, next) => {
    const count = Math.floor(0.1 * cloud.length);
    const order = permutation(cloud.length, next);
    const points = [...cloud], source = [...cloud.keys()], touched = cloud.map(() => false);
    order.slice(0, count).forEach((i, n) => {
      const around = cloud[order[cloud.length - count + n]];
      points[i] = times(3, (axis) => where == "global"
        ? between(-1, 1, next) : around[axis] + 0.1 * normal(next));
      [source[i]] = nearest(cloud, points[i], 1);
      touched[i] = true;
    });
    return { points, source, touched };
  };

  const families = {
    "affine maps": [affine],
    "local drops": [drop("local")],
    "random drops": [drop("random")],
    outliers: [outliers("global")],
    "outliers near the surface": [outliers("local")],
    "affine maps, local drops": [affine, drop("local")],
  };

  // Apply perturbations in turn. `changed` are the clean points that are no longer in their place.
  function perturb(cloud, steps, seed) {
    const next = uniform(seed);
    let points = cloud, source = [...cloud.keys()], touched = cloud.map(() => false);
    for (const step of steps) {
      const made = step(points, next);
      touched = made.source.map((i, n) => touched[i] || made.touched[n]);
      source = made.source.map((i) => source[i]);
      points = made.points;
    }
    const kept = new Set(source.filter((_, n) => !touched[n]));
    return { points, touched, changed: cloud.map((_, i) => !kept.has(i)) };
  }

  return { argsort, chamfer, families, farthest, noise, patches, perplexity, perturb };
})();
