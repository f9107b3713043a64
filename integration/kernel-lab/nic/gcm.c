// SPDX-License-Identifier: GPL-2.0
/*
 * AES-GCM of ESP (RFC 4106) in the kernel's AEAD API.
 *
 * Plain "gcm(aes)" with a nonce of our own making rather than "rfc4106(gcm(aes))", since the associated data of ESN is not
 * contiguous with the packet. The synchronous implementation is asked for: both callers run in softirq context.
 */
#include <linux/scatterlist.h>
#include <linux/slab.h>
#include <net/esp.h>
#include "nic.h"

struct gcm_work {
	u8 aad[12];
	u8 nonce[CYGNIC_SALT_LEN + CYGNIC_IV_LEN];
	struct scatterlist sg[2];
	struct aead_request request;
};

int cygnic_gcm_init(struct cygnic_sa *sa, struct xfrm_state *x)
{
	unsigned int key_len = x->aead->alg_key_len / 8 - CYGNIC_SALT_LEN;
	int err;

	sa->tfm = crypto_alloc_aead("gcm(aes)", 0, CRYPTO_ALG_ASYNC);
	if (IS_ERR(sa->tfm)) {
		err = PTR_ERR(sa->tfm);
		sa->tfm = NULL;
		return err;
	}
	memcpy(sa->salt, x->aead->alg_key + key_len, CYGNIC_SALT_LEN);
	err = crypto_aead_setkey(sa->tfm, x->aead->alg_key, key_len);
	if (!err)
		err = crypto_aead_setauthsize(sa->tfm, CYGNIC_ICV_LEN);
	return err;
}

/*
 * Encrypts or decrypts in place. `esp` is the ESP header, followed by the IV and `len` octets: the plaintext with room for the
 * ICV behind it, or the ciphertext with its ICV.
 */
int cygnic_gcm(struct cygnic_sa *sa, bool encrypt, u8 *esp, u32 seq_hi, unsigned int len)
{
	struct ip_esp_hdr *header = (struct ip_esp_hdr *)esp;
	unsigned int aad_len = 8;
	struct gcm_work *work;
	__be32 hi = htonl(seq_hi);
	int err;

	work = kmalloc(sizeof(*work) + crypto_aead_reqsize(sa->tfm), GFP_ATOMIC);
	if (!work)
		return -ENOMEM;
	memcpy(work->aad, &header->spi, 4);
	if (sa->esn) {
		memcpy(work->aad + 4, &hi, 4);
		memcpy(work->aad + 8, &header->seq_no, 4);
		aad_len = 12;
	} else {
		memcpy(work->aad + 4, &header->seq_no, 4);
	}
	memcpy(work->nonce, sa->salt, CYGNIC_SALT_LEN);
	memcpy(work->nonce + CYGNIC_SALT_LEN, esp + sizeof(*header), CYGNIC_IV_LEN);

	sg_init_table(work->sg, ARRAY_SIZE(work->sg));
	sg_set_buf(&work->sg[0], work->aad, aad_len);
	sg_set_buf(&work->sg[1], esp + CYGNIC_ESP_LEN, encrypt ? len + CYGNIC_ICV_LEN : len);
	aead_request_set_tfm(&work->request, sa->tfm);
	aead_request_set_callback(&work->request, 0, NULL, NULL);
	aead_request_set_ad(&work->request, aad_len);
	aead_request_set_crypt(&work->request, work->sg, work->sg, len, work->nonce);
	err = encrypt ? crypto_aead_encrypt(&work->request) : crypto_aead_decrypt(&work->request);
	kfree_sensitive(work);
	return err;
}
