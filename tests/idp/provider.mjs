// A certified OpenID provider (npm oidc-provider) as the tests' identity provider, on a loopback port of its own.
//
// It logs in whoever asks, so it is never for production: `login_hint` is the account, and a request for the context
// AAL2 in `acr_values` is answered with a second factor. Everything else is the library's: discovery, code + PKCE,
// resource indicators, DPoP, `max_age`. It prints one JSON line when it serves, and ends when its stdin does.

import { createServer } from 'node:http';
import { once } from 'node:events';

import { exportJWK, generateKeyPair } from 'jose';
import Provider, { interactionPolicy } from 'oidc-provider';

const AAL1 = 'urn:example:aal1';
const AAL2 = 'urn:example:aal2';
const ROLES = { alice: ['analyst'], tom: ['trial'] };
const TOKEN_SECONDS = 3600;

// RFC 8707: a resource of the client's choice is the audience `inference-proxy`, signed with the algorithm in its name.
const RESOURCES = { 'urn:hip:es256': 'ES256', 'urn:hip:eddsa': 'EdDSA' };

let generation = 0;

async function freshKeys() {
  generation += 1;
  return Promise.all(['ES256', 'EdDSA'].map(async (alg) => {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    return { ...(await exportJWK(privateKey)), kid: `${alg}-${generation}`, use: 'sig', alg };
  }));
}

function policy() {
  const { Check, base } = interactionPolicy;
  const prompts = base();
  // RFC 9470 section 5: a provider that is asked for a context looks whether the session has it. The library only does
  // that for the `claims` parameter.
  prompts.get('login').checks.add(new Check('acr_values', 'another context was asked for', ({ oidc }) => {
    const asked = oidc.params.acr_values?.split(' ') ?? [];
    return asked.length > 0 && !asked.includes(oidc.session.acr) && !oidc.result?.login;
  }));
  return prompts;
}

function configuration(keys) {
  return {
    acrValues: [AAL1, AAL2],
    clients: [{
      client_id: 'notebook',
      application_type: 'native',
      redirect_uris: ['http://127.0.0.1/done'],
      token_endpoint_auth_method: 'none',
      response_types: ['code'],
      grant_types: ['authorization_code'],
      id_token_signed_response_alg: 'ES256',
    }],
    cookies: { keys: ['for the tests only'] },
    extraParams: ['login_age'], // seconds: the session begins as one of that age
    extraTokenClaims: ({ oidc }) => {
      const { accountId, acr, amr, authTime } = oidc.entities.AuthorizationCode;
      return { acr, amr, auth_time: authTime, realm_access: { roles: ROLES[accountId] ?? [] } };
    },
    features: {
      devInteractions: { enabled: false },
      dPoP: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => 'urn:hip:es256',
        useGrantedResource: () => true,
        getResourceServerInfo: (_, resource) => ({
          scope: 'infer',
          audience: 'inference-proxy',
          accessTokenFormat: 'jwt',
          accessTokenTTL: TOKEN_SECONDS,
          jwt: { sign: { alg: RESOURCES[resource] } },
        }),
      },
    },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    interactions: { policy: policy(), url: (_, interaction) => `/interaction/${interaction.uid}` },
    jwks: { keys },
    pkce: { required: () => true },
    routes: {},
    ttl: { Session: TOKEN_SECONDS, Grant: TOKEN_SECONDS, Interaction: 60, AuthorizationCode: 60, IdToken: 60 },
  };
}

async function interact(provider, request, response) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(request, response);
  if (prompt.name === 'login') {
    const strong = (params.acr_values ?? '').split(' ').includes(AAL2);
    return provider.interactionFinished(request, response, {
      login: {
        accountId: params.login_hint ?? session?.accountId,
        acr: strong ? AAL2 : AAL1,
        amr: strong ? ['pwd', 'otp'] : ['pwd'],
        ts: Math.floor(Date.now() / 1000) - Number(params.login_age ?? 0),
      },
    });
  }
  const grant = grantId
    ? await provider.Grant.find(grantId)
    : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope('openid');
  Object.keys(RESOURCES).forEach((resource) => grant.addResourceScope(resource, 'infer'));
  return provider.interactionFinished(request, response, { consent: { grantId: await grant.save() } });
}

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const issuer = `http://127.0.0.1:${server.address().port}`;

let keys = [];
let provider;

// The library signs with the first key that fits; what it stores outlives the instance, so sessions go on.
function serveWith(some) {
  keys = some;
  provider = new Provider(issuer, configuration(keys));
}

const CONTROLS = {
  '/control/rotate': async () => serveWith([...await freshKeys(), ...keys]), // sign with new keys, publish the old too
  '/control/withdraw': async () => serveWith(keys.slice(0, 2)), // publish only what is signed with
};

serveWith(await freshKeys());
server.on('request', async (request, response) => {
  try {
    if (request.method === 'POST' && request.url in CONTROLS) {
      await CONTROLS[request.url]();
      response.end(JSON.stringify({ kids: keys.map(({ kid }) => kid) }));
    } else if (request.url.startsWith('/interaction/')) {
      await interact(provider, request, response);
    } else {
      await provider.callback()(request, response);
    }
  } catch (error) {
    response.statusCode = 500;
    response.end(`${error.name}: ${error.message} ${error.error_description ?? ''}`);
  }
});
process.stdin.resume();
process.stdin.on('end', () => process.exit(0));
console.log(JSON.stringify({ issuer }));
