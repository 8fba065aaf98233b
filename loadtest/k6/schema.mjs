// Compiles the published JSON Schema to functions, so that k6 can check every frame of a node with it. Pure,
// without k6: `test/frames.test.mjs` holds it to the samples in `schemas/samples`.
//
// k6 loads no npm packages, and a bundle of a validator would be generated code to keep from drifting. This
// knows the keywords that our schema uses, and refuses to compile any other: none is passed over.

const ANNOTATIONS = ['$schema', '$id', '$comment', '$defs', 'title', 'description', 'examples'];

const TYPES = {
  object: (value) => typeof value === 'object' && value !== null && !Array.isArray(value),
  array: Array.isArray,
  string: (value) => typeof value === 'string',
  boolean: (value) => typeof value === 'boolean',
  integer: Number.isInteger,
  number: (value) => typeof value === 'number',
  null: (value) => value === null,
};

/**
 * Each makes a check from a keyword's value: from a value to `null`, or to what is wrong. Who checks a member puts its
 * name before that; k6 checks thousands of frames a second that are right, and these make no texts.
 */
const KEYWORDS = {
  $ref: (name, compiler) => compiler.reference(name),
  type: (wanted) => {
    const names = [wanted].flat();
    const unknown = names.find((name) => TYPES[name] === undefined);
    if (unknown !== undefined) throw new Error(`a schema has the type ${unknown}, which is not known here`);
    const wrong = ` is no ${names.join(' or ')}`;
    if (names.length > 1) return (value) => (names.some((name) => TYPES[name](value)) ? null : wrong);
    const is = TYPES[names[0]];
    return (value) => (is(value) ? null : wrong);
  },
  const: (wanted) => (value) => (value === wanted ? null : ` is not ${JSON.stringify(wanted)}`),
  enum: (values) => (value) => (values.includes(value) ? null : ` is not one of ${values.join(', ')}`),
  required: (names) => (value) => {
    if (!TYPES.object(value)) return null;
    for (let i = 0; i < names.length; i += 1) {
      if (value[names[i]] === undefined) return `.${names[i]} is missing`;
    }
    return null;
  },
  properties: (schemas, compiler) => {
    const names = Object.keys(schemas);
    const checks = names.map((name) => compiler.compile(schemas[name]));
    return (value) => {
      if (!TYPES.object(value)) return null;
      for (let i = 0; i < names.length; i += 1) {
        const member = value[names[i]];
        const wrong = member === undefined ? null : checks[i](member);
        if (wrong !== null) return `.${names[i]}${wrong}`;
      }
      return null;
    };
  },
  // Stands for all members here: where it is a schema, ours have no `properties` beside it.
  additionalProperties: (schema, compiler, whole) => {
    if (schema === true) return null;
    if (schema === false || whole.properties !== undefined) throw new Error('no such additionalProperties are known here');
    const check = compiler.compile(schema);
    return (value) => first(TYPES.object(value) ? Object.keys(value) : [], (name) => check(value[name]));
  },
  propertyNames: (schema, compiler) => {
    const check = compiler.compile(schema);
    return (value) => first(TYPES.object(value) ? Object.keys(value) : [], check);
  },
  items: (schema, compiler) => {
    const check = compiler.compile(schema);
    return (value) => first(Array.isArray(value) ? [...value.keys()] : [], (at) => check(value[at]));
  },
  uniqueItems: (wanted) => (value) => {
    if (!wanted || !Array.isArray(value)) return null;
    return new Set(value.map((item) => JSON.stringify(item))).size === value.length ? null : ' has something twice';
  },
  pattern: (source) => {
    const pattern = new RegExp(source);
    return (value) => (typeof value !== 'string' || pattern.test(value) ? null : ` does not match ${source}`);
  },
  format: (name) => {
    if (name !== 'date-time') throw new Error(`a schema has the format ${name}, which is not known here`);
    return (value) => (typeof value !== 'string' || !Number.isNaN(Date.parse(value)) ? null : ' is no time');
  },
  minimum: (least) => (value) => (typeof value !== 'number' || value >= least ? null : ` is below ${least}`),
  maximum: (most) => (value) => (typeof value !== 'number' || value <= most ? null : ` is above ${most}`),
  // Characters outside the first plane have two units; counting them is left for where that decides.
  minLength: (least) => (value) =>
    typeof value !== 'string' || value.length >= 2 * least || [...value].length >= least ? null : ` is shorter than ${least}`,
  maxLength: (most) => (value) =>
    typeof value !== 'string' || value.length <= most || [...value].length <= most ? null : ` is longer than ${most}`,
  allOf: (schemas, compiler) => all(schemas.map((schema) => compiler.compile(schema))),
  anyOf: (schemas, compiler) => {
    const checks = schemas.map((schema) => compiler.compile(schema));
    return (value) => (checks.some((check) => check(value) === null) ? null : ' is none of its forms');
  },
  oneOf: (schemas, compiler) => {
    const checks = schemas.map((schema) => compiler.compile(schema));
    return (value) => {
      const fitting = checks.filter((check) => check(value) === null).length;
      return fitting === 1 ? null : ` is ${fitting} of its forms`;
    };
  },
};

/** What is wrong with the first of these with which something is. */
function first(names, check) {
  for (const name of names) {
    const wrong = check(name);
    if (wrong !== null) return `.${name}${wrong}`;
  }
  return null;
}

function all(checks) {
  if (checks.length === 1) return checks[0];
  return (value) => {
    for (let i = 0; i < checks.length; i += 1) {
      const wrong = checks[i](value);
      if (wrong !== null) return wrong;
    }
    return null;
  };
}

class Compiler {
  #defs;
  #compiled = new Map();

  constructor({ $defs }) {
    this.#defs = $defs;
  }

  compile(schema) {
    const checks = [];
    for (const [keyword, value] of Object.entries(schema)) {
      if (ANNOTATIONS.includes(keyword)) continue;
      const make = KEYWORDS[keyword];
      if (make === undefined) throw new Error(`a schema has the keyword ${keyword}, which is not known here`);
      const check = make(value, this, schema);
      if (check !== null) checks.push(check);
    }
    return all(checks);
  }

  /** A definition is compiled once. It is looked up when it is used: definitions may name each other in a circle. */
  reference(name) {
    const key = this.key(name);
    if (!this.#compiled.has(key)) {
      this.#compiled.set(key, null);
      this.#compiled.set(key, this.compile(this.#defs[key]));
    }
    let check = null;
    return (value) => {
      check ??= this.#compiled.get(key);
      return check(value);
    };
  }

  key(name) {
    const key = name.replace('#/$defs/', '');
    if (this.#defs[key] === undefined) throw new Error(`a schema names ${name}, which is not there`);
    return key;
  }

  /** The definitions without further choices among those that this one allows, with the `type` of each. */
  leaves(key) {
    const schema = this.#defs[key];
    if (schema.oneOf !== undefined) return schema.oneOf.flatMap(({ $ref }) => this.leaves(this.key($ref)));
    return [[schema.properties.type.const, this.compile(schema)]];
  }
}

function named(wrong) {
  return wrong === null ? null : `frame${wrong}`;
}

/**
 * A check of the frames of one side, `ServerFrame` or `ClientFrame`: `null`, or what is wrong. Frames are told
 * apart by `type` first, which saves trying every form.
 */
export function compileFrames(schema, side) {
  const forms = new Map();
  for (const [type, check] of new Compiler(schema).leaves(side)) {
    forms.set(type, [...(forms.get(type) ?? []), check]);
  }
  return (frame) => {
    if (!TYPES.object(frame)) return 'it is no object';
    const checks = forms.get(frame.type);
    if (checks === undefined) return `the type ${JSON.stringify(frame.type)} is not known`;
    if (checks.length === 1) return named(checks[0](frame));
    const wrong = checks.map((check) => named(check(frame)));
    return wrong.filter((text) => text === null).length === 1 ? null : wrong.join(', or ');
  };
}
