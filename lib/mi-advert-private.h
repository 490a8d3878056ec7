/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "mi-advert.h"
#include "mi-crypto-key.h"

G_BEGIN_DECLS

/* Shared by the files mi-advert*.c: one call of mi_advert_decode() and its formats. */

#define MI_ADVERT_MAC_LEN     6
#define MI_ADVERT_KEY_LEN     16
#define MI_ADVERT_KEY_OLD_LEN 12 /* MiBeacon v2 and v3 */
#define MI_ADVERT_TAG_LEN     4
#define MI_ADVERT_NONCE_MAX   13
#define MI_READING_NONE       MI_N_READINGS

struct _MiAdvertKey
{
  gsize len;
  MiCryptoKey *aes; /* NULL for a length that no format takes */
};

typedef struct
{
  const guint8 *address; /* nullable */
  const guint8 *data;
  gsize len;
  MiAdvertKey *key;           /* nullable */
  guint8 seen[MI_N_READINGS]; /* values of each kind so far, rejected ones included */
  gboolean usable;            /* something in the frame makes it "ok" */
  MiAdvert *out;
} MiAdvertDecoder;

/* How object values stand in a frame; all integers are little-endian. */
typedef enum
{
  MI_VALUE_RAW, /* only stepped over */
  MI_VALUE_UNSIGNED,
  MI_VALUE_SIGNED,
  MI_VALUE_BOOLEAN,
  MI_VALUE_FLOAT,
  MI_VALUE_THIRTY_FIVE,          /* signed, times 35 */
  MI_VALUE_THIRTY_FIVE_UNSIGNED, /* the same without a sign */
} MiValueType;

MiAdvertStatus mi_advert_decode_mibeacon (MiAdvertDecoder *self);
MiAdvertStatus mi_advert_decode_custom (MiAdvertDecoder *self);
MiAdvertStatus mi_advert_decode_bthome1 (MiAdvertDecoder *self);
MiAdvertStatus mi_advert_decode_bthome2 (MiAdvertDecoder *self);
MiAdvertStatus mi_advert_decode_qingping (MiAdvertDecoder *self);

/* Ends with an error; forgets the header, which is told with some errors only. */
MiAdvertStatus mi_advert_refuse (MiAdvertDecoder *self, MiAdvertError error);
/* Ends with an error; what is known of the header stays. */
MiAdvertStatus mi_advert_refuse_with_header (MiAdvertDecoder *self, MiAdvertError error);
/* Ends well: ok if anything usable was added, else empty. */
MiAdvertStatus mi_advert_finish (MiAdvertDecoder *self);

/* Whether @reversed is the advertiser's address; %TRUE, too, if that is not known. */
gboolean mi_advert_is_from (const MiAdvertDecoder *self, const guint8 *mac, gboolean reversed);
void mi_advert_set_mac (MiAdvertDecoder *self, const guint8 *mac, gboolean reversed);
void mi_advert_reverse_mac (guint8 out[MI_ADVERT_MAC_LEN], const guint8 *mac);
void mi_advert_set_encrypted (MiAdvertDecoder *self, gboolean encrypted);
void mi_advert_set_packet_id (MiAdvertDecoder *self, guint8 packet_id);
void mi_advert_set_counter (MiAdvertDecoder *self, guint32 counter);

/* What the checks "no_key" and "bad_key" say; %MI_ADVERT_ERROR_NONE: go on and decrypt */
MiAdvertError mi_advert_check_key (const MiAdvertDecoder *self, gboolean has_mac, gsize wanted);
/* Decrypts @len bytes at @cipher into out->plain. Needs mi_advert_check_key() before. */
gboolean mi_advert_open (MiAdvertDecoder *self, const guint8 *nonce, gsize nonce_len,
                         gboolean with_aad, const guint8 *cipher, gsize len, const guint8 *tag);
/* The same for MiBeacon v2 and v3. */
gboolean mi_advert_open_old (MiAdvertDecoder *self, const guint8 *nonce, gsize nonce_len,
                             const guint8 *cipher, gsize len, guint8 tag_byte);
/* Copies plaintext objects, so that they stand where decrypted ones do. */
void mi_advert_set_plain (MiAdvertDecoder *self, const guint8 *data, gsize len);

void mi_advert_add_object (MiAdvertDecoder *self, guint16 id, const guint8 *data, gsize len);
/* One value: plausible, it becomes a reading, else it is listed with the reason. */
void mi_advert_add (MiAdvertDecoder *self, guint kind, gint64 value, gint exponent, guint raw_len);
void mi_advert_add_within (MiAdvertDecoder *self, guint kind, gint64 value, gint64 min, gint64 max);
/* The same, taken from 1 to 4 bytes (MI_VALUE_FLOAT: 4) as @type says. */
void mi_advert_add_value (MiAdvertDecoder *self, guint kind, MiValueType type, gint exponent,
                          const guint8 *data, gsize len);

G_END_DECLS
